#pragma once

#include <memory>
#include <string>

#include "lib/net/address.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::net::testing {

// A TCP client that sends what it is told and keeps what it gets: for what no proper client would send. On the loop.
class RawClient {
 public:
  RawClient(AsioLoop& loop, const Address& address);
  ~RawClient();
  void send(std::string bytes);
  const std::string& received() const;
  bool finished() const;  // the other end has closed, or there never was one

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::net::testing
