#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/base/log.hpp"
#include "lib/net/asio_loop.hpp"
#include "lib/net/tls.hpp"
#include "lib/net/websocket_session.hpp"

namespace pitcrew::net {

struct WebSocketServerSettings {
  Address address;                            // port 0: any free one
  std::optional<TlsServerIdentity> identity;  // unset: no TLS (tests)
  size_t max_message_bytes = 256 * 1024;      // a larger one closes the session with 1009
  size_t max_queue_bytes = 1024 * 1024;       // waiting to be sent, per session; more cuts the session
  size_t max_connections = 10'000;            // more are closed at once
  Duration handshake_timeout = seconds(5);   // from the TCP accept to the request's end; and for a close to be answered
  Duration admission_timeout = seconds(10);  // for on_request's answer; then 503
  Duration ping_timeout = seconds(5);  // silence is met by a ping after half of it and closes the session after it

  Status validate() const;
};

// The answer to a request for a session: exactly one of the two, now or later, on the loop. Dropped unanswered: 503.
class WebSocketAdmission {
 public:
  virtual ~WebSocketAdmission() = default;
  // Upgrades; the session carries the context.
  virtual void accept(std::any context = {}) = 0;
  // Answers with an HTTP status and ends the connection.
  virtual void refuse(int http_status, std::string_view reason) = 0;
};
using WebSocketAdmissionPtr = std::unique_ptr<WebSocketAdmission>;

struct WebSocketServerHandler {
  // Decides before the upgrade; unset: everybody is accepted.
  std::function<void(const WebSocketRequest& request, WebSocketAdmissionPtr admission)> on_request = {};
  std::function<void(const WebSocketSessionPtr& session)> on_open = {};
  std::function<void(const WebSocketSessionPtr& session, std::string text)> on_message = {};
  // Once for every session that opened.
  std::function<void(const WebSocketSessionPtr& session, const WebSocketClose& close)> on_close = {};
};

// A WebSocket server over TLS on the loop. Destroying it cuts every session without on_close; the handler is not called
// again. Not being the leader is answered by on_request or by close(), here nothing is known of it.
class WebSocketServer {
 public:
  static Result<std::unique_ptr<WebSocketServer>> listen(AsioLoop& loop, WebSocketServerSettings settings,
                                                         WebSocketServerHandler handler, Logger log = {});
  virtual ~WebSocketServer() = default;
  virtual Address address() const = 0;               // with the port that was given
  virtual size_t sessions() const = 0;               // open
  virtual uint64_t refused_connections() const = 0;  // by max_connections
  // Shown to connections from now on; on an error the old one stays.
  virtual Status set_identity(const TlsServerIdentity& identity) = 0;
  // Closes every session, for a leader that steps down.
  virtual void close_all(uint16_t code, std::string_view reason) = 0;
};

}  // namespace pitcrew::net
