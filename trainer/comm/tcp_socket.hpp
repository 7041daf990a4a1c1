#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include <netinet/in.h>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::trainer {

// An open file descriptor, closed when it goes.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Socket& operator=(Socket&& other) noexcept;
  ~Socket() { close(); }

  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// An IPv4 or IPv6 address with a port. Only numbers are read, never names: nothing in the restart path waits for DNS.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  static Result<Address> parse(const std::string& host, uint16_t port);  // "10.0.0.7", "fd00::7", "localhost"
  uint16_t port() const;
  void set_port(uint16_t port);
  std::string text() const;
};

// How long an attempt may take, and who may end it early. `cancelled` is asked at least every 100 ms.
struct Deadline {
  std::chrono::steady_clock::time_point end;
  std::function<bool()> cancelled;

  static Deadline in(Duration duration, std::function<bool()> cancelled = {});
  // Milliseconds to wait in poll(), at most 100; an error once the time is over or the attempt is cancelled.
  Result<int> slice(const std::string& what) const;
};

// Non-blocking, close-on-exec sockets.
Result<Socket> listen_at(const Address& address);
Result<Address> local_address(const Socket& socket);
Result<Address> peer_address(const Socket& socket);
// Connects, trying again while nobody listens there, until the deadline.
Result<Socket> connect_to(const Address& address, const Deadline& deadline);
// A waiting connection, or a socket that isn't open where there is none.
Result<Socket> accept_from(const Socket& listener);
Status send_all(const Socket& socket, std::span<const std::byte> data, const Deadline& deadline);
// kUnavailable where the other side closes first.
Status receive_all(const Socket& socket, std::span<std::byte> data, const Deadline& deadline);

}  // namespace pitcrew::trainer
