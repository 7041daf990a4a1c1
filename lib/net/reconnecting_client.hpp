#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/random.hpp"
#include "lib/net/websocket_client.hpp"

namespace pitcrew::net {

struct ReconnectSettings {
  std::vector<Address> addresses;  // tried in turn; empty: nothing is tried until settings with some come
  std::optional<TlsTrust> trust;
  std::string path = "/";
  // Asked at every attempt, so that a rotated token is used. Unset: none.
  std::function<Headers()> headers = {};
  size_t max_message_bytes = 256 * 1024;
  size_t max_queue_bytes = 1024 * 1024;
  Duration connect_timeout = seconds(5);
  Duration ping_timeout = seconds(5);
  // Before attempt n: uniform in [0, min(longest, shortest · 2ⁿ)], counted anew once a session has been open for
  // `longest`.
  Duration shortest_delay = milliseconds(200);
  Duration longest_delay = seconds(5);
};

struct ReconnectHandler {
  std::function<void(const Address& address)> on_open = {};
  std::function<void(std::string text)> on_message = {};
  std::function<void(const WebSocketClose& close)> on_close = {};  // of a session that had opened
  std::function<void(const Address& address, const WebSocketClose& close)> on_failed_attempt = {};
};

// Keeps one WebSocket session open to one of several addresses: a launcher's end of the control channel. On the loop.
// Destroying it cuts the session; the handler is not called again.
class ReconnectingClient {
 public:
  ReconnectingClient(AsioLoop& loop, ReconnectSettings settings, ReconnectHandler handler, Random random,
                     Logger log = {});
  ~ReconnectingClient();
  ReconnectingClient(const ReconnectingClient&) = delete;
  ReconnectingClient& operator=(const ReconnectingClient&) = delete;

  bool connected() const;
  // False (and nothing is kept) while there is no session.
  bool send(std::string text);
  // From the next attempt on; an open session to an address that is no longer listed, or under a server name that has
  // changed, is closed. While none is open an attempt is made at once,
  // unless one to such an address and under the same trust is under way.
  void set_settings(ReconnectSettings settings);
  // Closes the session in order and makes no further attempt; on_close tells when it is done.
  void stop(uint16_t code, std::string_view reason);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::net
