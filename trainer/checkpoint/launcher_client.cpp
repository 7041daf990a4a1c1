#include "trainer/checkpoint/launcher_client.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <vector>

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

using launcher_socket::Answer;
using launcher_socket::Request;

// One connection for each call under way; idle ones are used again.
class SocketClient final : public LauncherClient {
 public:
  SocketClient(std::string path, Duration timeout) : path_(std::move(path)), timeout_(timeout) {}
  ~SocketClient() override {
    for (const int fd : idle_) ::close(fd);
  }

  Result<Answer> call(const Request& request) override {
    const uint64_t id = ++last_id_;
    const std::string line = launcher_socket::encode(id, request);
    if (line.size() > launcher_socket::kMaxLine)
      return Error(Code::kInvalidArgument, "a request to the launcher is too long for its socket");
    // An idle connection may have been closed by a launcher that died since; a new one tells for certain.
    PITCREW_ASSIGN(const Taken first, take(true));
    auto answer = talk(first.fd, id, line);
    give_back(first.fd, answer.ok());
    if (!answer && first.reused && answer.error().code == Code::kUnavailable) {
      PITCREW_ASSIGN(const Taken second, take(false));
      answer = talk(second.fd, id, line);
      give_back(second.fd, answer.ok());
    }
    if (aborted_) return Error(Code::kCancelled, "the call to the launcher was given up");
    if (!answer) return answer.error();
    if (answer->error) return *answer->error;
    return answer;
  }

  void abort() override {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    for (const int fd : busy_) ::shutdown(fd, SHUT_RDWR);
    for (const int fd : idle_) ::shutdown(fd, SHUT_RDWR);
  }

 private:
  struct Taken {
    int fd = -1;
    bool reused = false;
  };

  Error unavailable(const char* what, int number) const {
    return Error(Code::kUnavailable, std::string(what) + " the launcher at " + path_ + ": " + std::strerror(number));
  }

  Result<Taken> take(bool may_reuse) {
    const std::lock_guard lock(mutex_);
    if (aborted_) return Error(Code::kCancelled, "the call to the launcher was given up");
    if (may_reuse && !idle_.empty()) {
      const int fd = idle_.back();
      idle_.pop_back();
      busy_.insert(fd);
      return Taken{fd, true};
    }
    sockaddr_un address{};
    if (path_.size() >= sizeof address.sun_path)
      return Error(Code::kInvalidArgument, "the launcher's socket path is too long: " + path_);
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return unavailable("connect to", errno);
    const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(timeout_).count();
    const timeval limit{whole / 1'000'000, whole % 1'000'000};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      const int number = errno;
      ::close(fd);
      return unavailable("connect to", number);
    }
    busy_.insert(fd);
    return Taken{fd, false};
  }

  void give_back(int fd, bool usable) {
    const std::lock_guard lock(mutex_);
    busy_.erase(fd);
    if (usable && !aborted_) {
      idle_.push_back(fd);
    } else {
      ::close(fd);
    }
  }

  Result<Answer> talk(int fd, uint64_t id, const std::string& line) const {
    for (size_t sent = 0; sent < line.size();) {
      const ssize_t n = ::send(fd, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return unavailable("write to", errno);
      sent += static_cast<size_t>(n);
    }
    std::string text;
    while (true) {
      const size_t end = text.find('\n');
      if (end != std::string::npos) {
        PITCREW_ASSIGN(Answer answer, launcher_socket::decode_answer(std::string_view(text).substr(0, end)));
        if (answer.id == id) return answer;
        text.erase(0, end + 1);
        continue;
      }
      if (text.size() > launcher_socket::kMaxLine)
        return Error(Code::kInvalidArgument, "the launcher answered with too long a line");
      char piece[4096];
      const ssize_t n = ::recv(fd, piece, sizeof piece, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return Error(Code::kDeadlineExceeded,
                     "the launcher at " + path_ + " did not answer within " + to_string(timeout_));
      }
      if (n < 0) return unavailable("read from", errno);
      if (n == 0) return Error(Code::kUnavailable, "the launcher at " + path_ + " closed the connection");
      text.append(piece, static_cast<size_t>(n));
    }
  }

  const std::string path_;
  const Duration timeout_;
  std::atomic<uint64_t> last_id_{0};
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::vector<int> idle_;
  std::set<int> busy_;
};

}  // namespace

std::unique_ptr<LauncherClient> connect_launcher(std::string path, Duration timeout) {
  return std::make_unique<SocketClient>(std::move(path), timeout);
}

}  // namespace pitcrew::trainer
