#include "trainer/comm/tcp_socket.hpp"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

Status wait_for(int fd, short events, const Deadline& deadline, const std::string& what) {
  for (;;) {
    PITCREW_ASSIGN(const int wait, deadline.slice(what));
    pollfd entry{fd, events, 0};
    const int ready = poll(&entry, 1, wait);
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return errno_error(what, errno);
  }
}

bool nobody_there_yet(int number) {
  return number == ECONNREFUSED || number == ETIMEDOUT || number == EHOSTUNREACH || number == ENETUNREACH ||
         number == ECONNRESET || number == EADDRNOTAVAIL;
}

Status try_connect(const Socket& socket, const Address& address, const Deadline& deadline, int& number) {
  const std::string what = "connect to " + address.text();
  number = 0;
  if (connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0) return {};
  if (errno != EINPROGRESS) {
    number = errno;
    return errno_error(what, number);
  }
  PITCREW_TRY(wait_for(socket.fd(), POLLOUT, deadline, what));
  socklen_t length = sizeof number;
  getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &number, &length);
  if (number != 0) return errno_error(what, number);
  return {};
}

void set_no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.fd_;
    other.fd_ = -1;
  }
  return *this;
}

void Socket::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<Address> Address::parse(const std::string& host, uint16_t port) {
  const std::string numeric = host == "localhost" ? "127.0.0.1" : host;
  Address address;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  if (inet_pton(AF_INET, numeric.c_str(), &v4.sin_addr) == 1) {
    address.storage.ss_family = AF_INET;
    address.length = sizeof(sockaddr_in);
  } else if (inet_pton(AF_INET6, numeric.c_str(), &v6.sin6_addr) == 1) {
    address.storage.ss_family = AF_INET6;
    address.length = sizeof(sockaddr_in6);
  } else {
    return Error(Code::kInvalidArgument,
                 "MASTER_ADDR '" + host + "' is not an IPv4 or IPv6 address; names are not looked up, set a number");
  }
  address.set_port(port);
  return address;
}

uint16_t Address::port() const {
  if (storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(storage).sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in&>(storage).sin_port);
}

void Address::set_port(uint16_t port) {
  if (storage.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(storage).sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in&>(storage).sin_port = htons(port);
  }
}

std::string Address::text() const {
  char text[INET6_ADDRSTRLEN] = "?";
  if (storage.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(port());
  }
  inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(storage).sin_addr, text, sizeof text);
  return std::string(text) + ":" + std::to_string(port());
}

Deadline Deadline::in(Duration duration, std::function<bool()> cancelled) {
  return {std::chrono::steady_clock::now() + duration, std::move(cancelled)};
}

Result<int> Deadline::slice(const std::string& what) const {
  if (cancelled && cancelled()) return Error(Code::kCancelled, what + ": told to stop");
  const auto left = std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now()).count();
  if (left <= 0) return Error(Code::kDeadlineExceeded, what + ": no answer in time");
  return static_cast<int>(std::min<int64_t>(left, 100));
}

Result<Socket> listen_at(const Address& address) {
  const std::string what = "listen at " + address.text();
  Socket socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return errno_error(what, errno);
  const int on = 1;
  setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0)
    return errno_error(what, errno);
  if (listen(socket.fd(), SOMAXCONN) != 0) return errno_error(what, errno);
  return socket;
}

Result<Address> local_address(const Socket& socket) {
  Address address;
  address.length = sizeof address.storage;
  if (getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    return errno_error("read a socket's own address", errno);
  }
  return address;
}

Result<Address> peer_address(const Socket& socket) {
  Address address;
  address.length = sizeof address.storage;
  if (getpeername(socket.fd(), reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    return errno_error("read a peer's address", errno);
  }
  return address;
}

Result<Socket> connect_to(const Address& address, const Deadline& deadline) {
  for (int pause = 10;; pause = std::min(2 * pause, 100)) {
    Socket socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket.open()) return errno_error("make a socket for " + address.text(), errno);
    int number = 0;
    Status connected = try_connect(socket, address, deadline, number);
    if (connected) {
      set_no_delay(socket.fd());
      return socket;
    }
    if (!nobody_there_yet(number)) return connected.error();
    const auto left = deadline.slice("connect to " + address.text());
    if (!left) return Error(left.error().code, connected.error().message + "; gave up");
    poll(nullptr, 0, std::min(*left, pause));
  }
}

Result<Socket> accept_from(const Socket& listener) {
  for (;;) {
    const int fd = accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      set_no_delay(fd);
      return Socket(fd);
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Socket();
    return errno_error("accept a connection", errno);
  }
}

Status send_all(const Socket& socket, std::span<const std::byte> data, const Deadline& deadline) {
  while (!data.empty()) {
    const ssize_t sent = send(socket.fd(), data.data(), data.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      data = data.subspan(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      PITCREW_TRY(wait_for(socket.fd(), POLLOUT, deadline, "send"));
    } else if (errno != EINTR) {
      return errno_error("send", errno);
    }
  }
  return {};
}

Status receive_all(const Socket& socket, std::span<std::byte> data, const Deadline& deadline) {
  while (!data.empty()) {
    const ssize_t got = recv(socket.fd(), data.data(), data.size(), 0);
    if (got > 0) {
      data = data.subspan(static_cast<size_t>(got));
    } else if (got == 0) {
      return Error(Code::kUnavailable, "the other side closed the connection");
    } else if (errno == EAGAIN) {
      PITCREW_TRY(wait_for(socket.fd(), POLLIN, deadline, "receive"));
    } else if (errno != EINTR) {
      return errno_error("receive", errno);
    }
  }
  return {};
}

}  // namespace pitcrew::trainer
