#include "lib/local/node/node_shim.hpp"

#include <cerrno>
#include <map>
#include <string>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/json.hpp"
#include "lib/local/node/container_shim.hpp"
#include "lib/local/node/process_tree.hpp"

namespace pitcrew::local {
namespace {

class NodeShim {
 public:
  explicit NodeShim(int fd) : fd_(fd) {}

  int run() {
    ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
    // When the owner dies the socket closes, and what runs is killed in order; this one has to be awake for it (SIGSTOP
    // from outside).
    ::prctl(PR_SET_PDEATHSIG, SIGCONT);
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t handled;
    ::sigemptyset(&handled);
    for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&handled, number);
    ::sigprocmask(SIG_SETMASK, &handled, nullptr);
    const int signals = ::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) return 1;
    tell({{"event", "booted"}});
    while (!off_) {
      pollfd watched[2] = {{fd_, POLLIN, 0}, {signals, POLLIN, 0}};
      if (::poll(watched, 2, -1) < 0 && errno != EINTR) break;
      if (watched[1].revents != 0) read_signals(signals);
      if (watched[0].revents != 0 && !read_orders()) break;
    }
    kill_descendants(::getpid());
    return 0;
  }

 private:
  struct Running {
    std::string id;
    unsigned long oom_kills_before = 0;
    bool killed = false;
  };

  void tell(const Json& line) {
    const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t wrote = ::send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) {
        off_ = true;
        return;
      }
      sent += static_cast<size_t>(wrote);
    }
  }

  bool read_orders() {
    char buffer[16384];
    const ssize_t got = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EINTR) return true;
    if (got <= 0) return false;
    input_.append(buffer, static_cast<size_t>(got));
    for (size_t end = 0; (end = input_.find('\n')) != std::string::npos;) {
      const Json order = Json::parse(input_.substr(0, end), nullptr, false);
      input_.erase(0, end + 1);
      if (order.is_object()) obey(order);
    }
    return !off_;
  }

  void obey(const Json& order) {
    const std::string what = order.value("do", "");
    const std::string id = order.value("id", "");
    if (what == "off") off_ = true;
    if (what == "freeze") {
      stop_descendants(::getpid());
      frozen_ = true;
    }
    if (frozen_ || off_) return;
    if (what == "start") start(order, id);
    for (auto& [pid, running] : running_) {
      if (running.id != id) continue;
      if (what == "signal") ::kill(pid, order.value("signal", SIGTERM));
      if (what == "kill") {
        running.killed = true;
        kill_descendants(pid);
      }
    }
  }

  void start(const Json& order, const std::string& id) {
    ContainerSpec spec;
    spec.id = id;
    spec.argv = order.value("argv", std::vector<std::string>{});
    spec.env = order.value("env", std::map<std::string, std::string>{});
    spec.folder = order.value("folder", "");
    spec.log_file = order.value("log", "");
    const unsigned long before = oom_kills();
    const StartedContainer started = start_container(spec, fd_);
    if (started.error.empty()) {
      running_[started.pid] = {id, before, false};
      return;
    }
    // 128 and StartError are what containerd reports for a command that can't be started.
    tell({{"event", "exited"},
          {"id", id},
          {"code", 128},
          {"signal", 0},
          {"oom", false},
          {"start_failed", true},
          {"message", started.error}});
  }

  void read_signals(int signals) {
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      if (info.ssi_signo != SIGCHLD) off_ = true;
    }
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) ended(pid, status);
  }

  void ended(pid_t pid, int status) {
    const auto found = running_.find(pid);
    if (found == running_.end()) return;  // an orphan
    const Running running = found->second;
    running_.erase(found);
    // Where the container's shim was killed, what it left is ours now, and belongs to no container.
    for (const pid_t child : children(::getpid())) {
      if (running_.contains(child)) continue;
      kill_descendants(child);
      ::kill(child, SIGKILL);
    }
    if (frozen_) return;
    const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const bool oom = number == SIGKILL && !running.killed && oom_kills() > running.oom_kills_before;
    tell({{"event", "exited"},
          {"id", running.id},
          {"code", number != 0 ? 128 + number : WEXITSTATUS(status)},
          {"signal", number},
          {"oom", oom},
          {"start_failed", false},
          {"message", ""}});
  }

  int fd_;
  bool off_ = false;
  bool frozen_ = false;
  std::string input_;
  std::map<pid_t, Running> running_;
};

}  // namespace

// Without the program's exit handlers: nothing here needs them, and whoever waits for the node waits for this process
// (a leak checker's look at the end was seen to hang here).
[[noreturn]] void node_shim_main(int fd) { ::_exit(NodeShim(fd).run()); }

}  // namespace pitcrew::local
