#include "launcher/memory/rank_socket.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace pitcrew::launcher {
namespace {

constexpr size_t kMostConnections = 256;
constexpr size_t kMostUnread = 1024 * 1024;  // of answers that a rank does not take

}  // namespace

struct RankSocket::Connection {
  Descriptor socket;
  net::AsioLoop::WatchPtr readable;
  net::AsioLoop::WatchPtr writable;
  std::string in;
  std::string out;
};

RankSocket::RankSocket(net::AsioLoop& loop, Handler handler, Logger log)
    : loop_(loop), handler_(std::move(handler)), log_(std::move(log)) {}

Result<std::unique_ptr<RankSocket>> RankSocket::listen(net::AsioLoop& loop, const std::string& path, Handler handler,
                                                       Logger log) {
  std::unique_ptr<RankSocket> server(new RankSocket(loop, std::move(handler), std::move(log)));
  server->path_ = path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    const char* base = getenv("TMPDIR");
    std::string folder = std::string(base != nullptr && strlen(base) < 60 ? base : "/tmp") + "/pitcrew-XXXXXX";
    if (mkdtemp(folder.data()) == nullptr)
      return errno_error("make a folder for the launcher's socket, " + folder, errno);
    server->own_folder_ = folder;
    server->path_ = folder + "/launcher.sock";
  }
  memcpy(address.sun_path, server->path_.data(), server->path_.size());
  server->listener_ = Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  unlink(server->path_.c_str());
  if (bind(server->listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(server->listener_.get(), 64) != 0) {
    return errno_error("listen at " + server->path_, errno);
  }
  chmod(server->path_.c_str(), 0600);
  RankSocket* raw = server.get();
  PITCREW_ASSIGN(server->accept_watch_,
                 loop.watch_fd(server->listener_.get(), net::AsioLoop::Ready::kRead, [raw] { raw->accept(); }));
  return server;
}

RankSocket::~RankSocket() {
  if (listener_) unlink(path_.c_str());
  if (!own_folder_.empty()) rmdir(own_folder_.c_str());
}

void RankSocket::cut() { connections_.clear(); }

void RankSocket::accept() {
  Descriptor socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket || connections_.size() >= kMostConnections) return;
  const uint64_t id = next_++;
  auto connection = std::make_unique<Connection>();
  auto watch = loop_.watch_fd(socket.get(), net::AsioLoop::Ready::kRead, [this, id] { readable(id); });
  if (!watch) return;
  connection->socket = std::move(socket);
  connection->readable = std::move(*watch);
  connections_.emplace(id, std::move(connection));
}

void RankSocket::readable(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  char buffer[16 * 1024];
  const ssize_t got = read(connection.socket.get(), buffer, sizeof buffer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close(id);
  connection.in.append(buffer, static_cast<size_t>(got));
  take_lines(id);
}

void RankSocket::take_lines(uint64_t id) {
  while (true) {
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;
    std::string& in = found->second->in;
    const size_t end = in.find('\n');
    if (end == std::string::npos) {
      if (in.size() <= launcher_socket::kMaxLine) return;
      log_.warning("a rank sent a line without end over the launcher's socket; its connection is cut");
      return close(id);
    }
    const std::string line = in.substr(0, end);
    in.erase(0, end + 1);
    auto request = launcher_socket::decode_request(line);
    if (!request) {
      // An id may still be in it, so that the rank knows which of its requests was refused.
      launcher_socket::Answer refused{.error = request.error()};
      if (const auto json = parse_json(line);
          json && json->is_object() && json->contains("id") && (*json)["id"].is_number_unsigned()) {
        refused.id = (*json)["id"].get<uint64_t>();
      }
      send(id, launcher_socket::encode(refused));
      continue;
    }
    handler_(std::move(request->second),
             [this, alive = std::weak_ptr(alive_), id, number = request->first](launcher_socket::Answer answer) {
               if (alive.expired()) return;
               answer.id = number;
               std::string text = launcher_socket::encode(answer);
               if (text.size() > launcher_socket::kMaxLine) {
                 answer = {.id = number,
                           .error = Error(Code::kResourceExhausted, "the answer has " + std::to_string(text.size()) +
                                                                        " bytes; a line has at most " +
                                                                        std::to_string(launcher_socket::kMaxLine))};
                 text = launcher_socket::encode(answer);
               }
               send(id, std::move(text));
             });
  }
}

void RankSocket::send(uint64_t id, std::string line) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  found->second->out += line;
  flush(id);
}

void RankSocket::flush(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  while (!connection.out.empty()) {
    const ssize_t sent = ::send(connection.socket.get(), connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      if (connection.out.size() > kMostUnread) {
        log_.warning("a rank does not read its answers from the launcher's socket; its connection is cut");
        return close(id);
      }
      if (connection.writable) return;
      auto watch = loop_.watch_fd(connection.socket.get(), net::AsioLoop::Ready::kWrite, [this, id] { flush(id); });
      if (!watch) return close(id);
      connection.writable = std::move(*watch);
      return;
    }
    if (sent < 0) return close(id);
    connection.out.erase(0, static_cast<size_t>(sent));
  }
  connection.writable.reset();
}

void RankSocket::close(uint64_t id) {
  // From inside its own functions too: the watches go after them.
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  loop_.post([kept = std::shared_ptr<Connection>(std::move(found->second))] {});
  connections_.erase(found);
}

}  // namespace pitcrew::launcher
