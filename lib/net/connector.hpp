#pragma once

// Internal to lib/net.

#include <functional>
#include <memory>

#include "lib/net/stream.hpp"

namespace pitcrew::net::internal {

// One attempt to connect, TLS included, under a deadline. Destroying it gives the attempt up; `done` is then not
// called. It may be destroyed from inside `done`.
class Connector {
 public:
  using Done = std::function<void(Result<Stream> stream)>;
  Connector(AsioLoop& loop, const Address& address, Result<TlsState> tls, Duration timeout, Done done);
  ~Connector();
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::net::internal
