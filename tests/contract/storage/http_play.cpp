#include "tests/contract/storage/http_play.hpp"

#include <algorithm>
#include <cctype>
#include <optional>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/result.hpp"

namespace pitcrew::trainer::testing {
namespace {

sockaddr_in local(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool send_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    text.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool receive(int fd, std::string& text) {
  char buffer[64 * 1024];
  const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
  if (got > 0) text.append(buffer, static_cast<size_t>(got));
  return got > 0;
}

std::optional<HttpPlay::Request> read_request(int fd) {
  std::string text;
  size_t end;
  while ((end = text.find("\r\n\r\n")) == std::string::npos) {
    if (!receive(fd, text)) return std::nullopt;
  }
  HttpPlay::Request request;
  request.method = text.substr(0, text.find(' '));
  const size_t target = request.method.size() + 1;
  request.target = text.substr(target, text.find(' ', target) - target);
  for (size_t at = text.find("\r\n") + 2; at < end; at = text.find("\r\n", at) + 2) {
    const size_t colon = text.find(':', at), line = text.find("\r\n", at);
    std::string name = text.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers[name] = text.substr(colon + 2, line - colon - 2);
  }
  const auto length = request.headers.find("content-length");
  const size_t bytes = length == request.headers.end() ? 0 : std::stoull(length->second);
  request.body = text.substr(end + 4);
  while (request.body.size() < bytes) {
    if (!receive(fd, request.body)) return std::nullopt;
  }
  return request;
}

// The answer's bytes, up to the end of its connection.
std::string forward(const HttpPlay::Request& request, uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = local(port);
  std::string answer;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    std::string text = request.method + " " + request.target + " HTTP/1.1\r\nConnection: close\r\n";
    for (const auto& [name, value] : request.headers) {
      if (name != "connection") text += name + ": " + value + "\r\n";
    }
    if (send_all(fd, text + "\r\n" + request.body)) {
      while (receive(fd, answer)) {
      }
    }
  }
  ::close(fd);
  return answer;
}

}  // namespace

HttpPlay::HttpPlay(Play play, uint16_t server_port) : play_(std::move(play)), server_port_(server_port) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = local(0);
  socklen_t size = sizeof address;
  PITCREW_INVARIANT(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                        ::listen(listener_, 64) == 0 &&
                        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0,
                    "a port of the loopback");
  port_ = ntohs(address.sin_port);
  accepting_ = std::jthread([this] {
    while (true) {
      const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      const std::lock_guard lock(mutex_);
      connections_.emplace_back([this, connection] { serve(connection); });
    }
  });
}

HttpPlay::~HttpPlay() {
  ::shutdown(listener_, SHUT_RDWR);
  accepting_.join();
  ::close(listener_);
  connections_.clear();
}

std::vector<HttpPlay::Request> HttpPlay::seen() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

void HttpPlay::serve(int connection) {
  const timeval patience{20, 0};
  ::setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (const auto request = read_request(connection)) {
    Action action;
    {
      const std::lock_guard lock(mutex_);
      action = play_(*request);
      seen_.push_back(*request);
      seen_.back().body.resize(std::min<size_t>(seen_.back().body.size(), 4096));
    }
    if (action.kind == Action::Kind::kAnswer) {
      std::string text = "HTTP/1.1 " + std::to_string(action.status) +
                         " X\r\nConnection: close\r\nContent-Length: " + std::to_string(action.body.size()) + "\r\n";
      for (const auto& [name, value] : action.headers) text += name + ": " + value + "\r\n";
      send_all(connection, text + "\r\n" + action.body);
    } else {
      const std::string answer = forward(*request, server_port_);
      if (action.kind == Action::Kind::kForward) {
        send_all(connection, answer);
      } else {
        const linger at_once{1, 0};
        ::setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      }
    }
  }
  ::close(connection);
}

}  // namespace pitcrew::trainer::testing
