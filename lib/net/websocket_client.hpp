#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/net/asio_loop.hpp"
#include "lib/net/tls.hpp"
#include "lib/net/websocket_session.hpp"

namespace pitcrew::net {

struct WebSocketClientSettings {
  Address address;                // numeric
  std::optional<TlsTrust> trust;  // unset: no TLS (tests)
  std::string path = "/";
  Headers headers;  // Authorization and the like
  size_t max_message_bytes = 256 * 1024;
  size_t max_queue_bytes = 1024 * 1024;
  Duration connect_timeout = seconds(5);  // TCP, TLS and the upgrade together; and for a close to be answered
  Duration ping_timeout = seconds(5);     // silence is met by a ping after half of it and closes the session after it
};

struct WebSocketClientHandler {
  std::function<void(const WebSocketSessionPtr& session)> on_open = {};
  std::function<void(std::string text)> on_message = {};
  // Once, whether or not the session opened. An HTTP refusal reads "refused with 401: …".
  std::function<void(const WebSocketClose& close)> on_close = {};
};

// One attempt at one session, on the loop. Destroying it cuts the session; the handler is not called again. It may be
// destroyed from inside its own functions.
class WebSocketClient {
 public:
  static std::unique_ptr<WebSocketClient> connect(AsioLoop& loop, WebSocketClientSettings settings,
                                                  WebSocketClientHandler handler);
  virtual ~WebSocketClient() = default;
  // Null before on_open and after on_close.
  virtual WebSocketSessionPtr session() const = 0;
};

}  // namespace pitcrew::net
