#pragma once

#include <memory>

#include "lib/base/random.hpp"
#include "lib/net/address.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::net::testing {

// A proxy between a client and a server that does to their bytes what networks do. On the loop; its conditions hold for
// every connection through it and can be changed at any time. (After userver's chaos TcpGate.)
class TcpGate {
 public:
  enum class Direction { kToServer, kToClient };

  TcpGate(AsioLoop& loop, Address server, Random random);
  ~TcpGate();
  TcpGate(const TcpGate&) = delete;
  TcpGate& operator=(const TcpGate&) = delete;

  Address address() const;  // where clients connect
  size_t connections() const;
  uint64_t forwarded(Direction direction) const;  // bytes, over all connections

  // New connections are reset at once.
  void refuse(bool on);
  // Bytes are taken no more and nothing is said, as when a node loses its power: no FIN, no RST.
  void stop(Direction direction, bool on);
  void stop_both(bool on);
  // Every piece waits this long.
  void delay(Duration delay);
  // Pieces of at most so many bytes; 0: as they come.
  void slice(size_t bytes);
  // One bit of the next piece is flipped, once.
  void corrupt_next(Direction direction);
  // The receiver of this direction is told that its peer has finished sending (FIN); the other direction goes on.
  void half_close(Direction direction);
  // Resets every connection.
  void cut();
  // Resets a connection once so many bytes in all have gone through it in this direction; 0: never.
  void cut_after(Direction direction, uint64_t bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::net::testing
