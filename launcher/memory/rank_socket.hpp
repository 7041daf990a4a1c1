#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "launcher/supervise/process.hpp"
#include "lib/base/launcher_socket.hpp"
#include "lib/base/log.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::launcher {

// The Unix socket PITCREW_LAUNCHER: takes the requests of this pod's ranks, a line of JSON each, and sends the answers
// back. Requests of one connection may be answered in any order. A rank that does not read its answers, or sends a line
// that is too long, is cut. On the loop; destroying it removes the socket, and answers given later go nowhere.
class RankSocket {
 public:
  using Answer = std::function<void(launcher_socket::Answer answer)>;  // its id is filled in
  using Handler = std::function<void(launcher_socket::Request request, Answer answer)>;

  // A path that is too long for a socket (107 bytes) is replaced by one in a new folder under TMPDIR or /tmp: path()
  // says it.
  static Result<std::unique_ptr<RankSocket>> listen(net::AsioLoop& loop, const std::string& path, Handler handler,
                                                    Logger log);
  ~RankSocket();

  const std::string& path() const { return path_; }
  // Cuts all connections: for a new epoch.
  void cut();

 private:
  struct Connection;
  RankSocket(net::AsioLoop& loop, Handler handler, Logger log);
  void accept();
  void readable(uint64_t id);
  void take_lines(uint64_t id);
  void send(uint64_t id, std::string line);
  void flush(uint64_t id);
  void close(uint64_t id);

  net::AsioLoop& loop_;
  Handler handler_;
  Logger log_;
  std::string path_;
  std::string own_folder_;  // made for the socket
  Descriptor listener_;
  net::AsioLoop::WatchPtr accept_watch_;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  uint64_t next_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pitcrew::launcher
