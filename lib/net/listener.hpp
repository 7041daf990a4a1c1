#pragma once

// Internal to lib/net.

#include <functional>
#include <memory>

#include "lib/net/stream.hpp"

namespace pitcrew::net::internal {

struct ListenerSettings {
  Address address;
  size_t max_connections = 0;
  Duration handshake_timeout = {};
  // The TLS of a new connection; unset: none.
  std::function<Result<TlsState>()> make_tls = {};
};

// Holds a connection's place among max_connections as long as it lives.
using ConnectionSlot = std::shared_ptr<void>;

struct ListenerHandler {
  // A connection, its TLS handshake done.
  std::function<void(Stream stream, Address peer, ConnectionSlot slot)> on_stream;
  std::function<void(const Error& error)> on_handshake_failed = {};
};

// Accepts connections on one address, IPv4 and IPv6 where it is no particular one, and does their TLS handshakes under
// a deadline. Owned by a server; destroying it ends handshakes under way.
class Listener {
 public:
  static Result<std::unique_ptr<Listener>> open(AsioLoop& loop, ListenerSettings settings, ListenerHandler handler);
  ~Listener();
  Address address() const;
  size_t connections() const;  // slots in use
  uint64_t refused() const;

 private:
  struct State;
  explicit Listener(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// Nagle off, and a dead peer noticed by the kernel too.
void set_socket_options(Socket& socket);

}  // namespace pitcrew::net::internal
