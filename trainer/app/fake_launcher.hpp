#pragma once

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/launcher_socket.hpp"

namespace pitcrew::trainer {

// A launcher's socket that answers every request with "ok" and remembers it. For tests.
class FakeLauncher {
 public:
  explicit FakeLauncher(const std::string& path) {
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    PITCREW_INVARIANT(
        bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && listen(listener_, 16) == 0,
        "a socket");
    PITCREW_INVARIANT(pipe(stop_) == 0, "a pipe");
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeLauncher() {
    close(stop_[1]);
    thread_.join();
    close(stop_[0]);
    close(listener_);
  }
  // Waits until a rank has sent evidence.
  launcher_socket::Evidence wait_for_evidence() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !evidence_.empty(); });
    return evidence_.front();
  }

 private:
  void serve() {
    std::map<int, std::string> clients;
    for (;;) {
      std::vector<pollfd> entries{{stop_[0], POLLIN, 0}, {listener_, POLLIN, 0}};
      for (const auto& [fd, text] : clients) entries.push_back({fd, POLLIN, 0});
      poll(entries.data(), entries.size(), -1);
      if (entries[0].revents != 0) break;
      if (entries[1].revents != 0) clients[accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)];
      for (size_t i = 2; i < entries.size(); ++i) {
        if (entries[i].revents != 0 && !hear(entries[i].fd, clients[entries[i].fd])) {
          close(entries[i].fd);
          clients.erase(entries[i].fd);
        }
      }
    }
    for (const auto& [fd, text] : clients) close(fd);
  }

  bool hear(int fd, std::string& text) {
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) return false;
    text.append(buffer, static_cast<size_t>(got));
    for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
      const auto request = launcher_socket::decode_request(text.substr(0, end));
      if (!request) return false;
      launcher_socket::Answer answer;
      answer.id = request->first;
      const std::string line = launcher_socket::encode(answer);
      if (write(fd, line.data(), line.size()) < 0) return false;
      if (const auto* evidence = std::get_if<launcher_socket::Evidence>(&request->second)) {
        std::lock_guard lock(mutex_);
        evidence_.push_back(*evidence);
        changed_.notify_all();
      }
    }
    return true;
  }

  int listener_ = -1;
  int stop_[2];
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<launcher_socket::Evidence> evidence_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace pitcrew::trainer
