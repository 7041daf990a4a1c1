#include "lib/local/node/process_runtime.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/json.hpp"
#include "lib/local/node/own_children.hpp"
#include "lib/local/node/process_tree.hpp"

namespace pitcrew::local {
namespace {

// Marks what was started below one shim, so that orphans of a shim that was killed are known.
constexpr char kMark[] = "PITCREW_NODE_PROCESS";

std::string new_mark() {
  static std::atomic<uint64_t> counter{0};
  return std::to_string(::getpid()) + "-" + std::to_string(++counter);
}

}  // namespace

struct ProcessRuntime::State : std::enable_shared_from_this<ProcessRuntime::State> {
  State(Loop& loop, ProcessRuntimeSettings settings, Logger log)
      : loop(loop), settings(std::move(settings)), log(std::move(log)) {}

  Loop& loop;
  ProcessRuntimeSettings settings;
  Logger log;
  Handler* handler = nullptr;  // null once the runtime is gone
  std::string mark;
  int fd = -1;  // -1: off
  std::atomic<pid_t> shim{-1};
  std::thread reader;
  uint64_t boots = 0;

  void post(std::function<void(State&)> task) {
    loop.post([weak = weak_from_this(), boot = boots, task = std::move(task)] {
      const auto state = weak.lock();
      if (state && state->handler != nullptr && state->boots == boot) task(*state);
    });
  }

  Status spawn() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("socketpair", errno);
    mark = new_mark();
    constexpr int kChildFd = 3;
    std::vector<std::string> words = settings.shim_command;
    words.push_back(std::to_string(kChildFd));
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::vector<std::string> variables;
    for (char** entry = ::environ; *entry != nullptr; ++entry) {
      if (std::string_view(*entry).substr(0, sizeof(kMark) - 1) != kMark) variables.push_back(*entry);
    }
    variables.push_back(std::string(kMark) + "=" + mark);
    std::vector<char*> envp;
    for (std::string& variable : variables) envp.push_back(variable.data());
    envp.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // dup2 onto itself would keep the descriptor close-on-exec where it happens to be 3; POSIX 2024 and glibc 2.29
    // clear it.
    posix_spawn_file_actions_adddup2(&actions, ends[1], kChildFd);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    ::sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    int error = 0;
    const pid_t pid = start_child([&] {
      pid_t started = -1;
      error = ::posix_spawn(&started, argv[0], &actions, &attributes, argv.data(), envp.data());
      return error == 0 ? started : -1;
    });
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    ::close(ends[1]);
    if (error != 0) {
      ::close(ends[0]);
      return errno_error("starting a node with " + settings.shim_command.front(), error);
    }
    fd = ends[0];
    shim = pid;
    return {};
  }

  // On the reader's thread: until the shim is gone and nothing of it is left.
  void read(int socket, pid_t pid, std::string own_mark) {
    std::string input;
    char buffer[16384];
    while (true) {
      const ssize_t got = ::recv(socket, buffer, sizeof(buffer), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      input.append(buffer, static_cast<size_t>(got));
      for (size_t end = 0; (end = input.find('\n')) != std::string::npos;) {
        Json line = Json::parse(input.substr(0, end), nullptr, false);
        input.erase(0, end + 1);
        if (line.is_object()) post([line = std::move(line)](State& state) { state.tell(line); });
      }
    }
    const int status = wait_for_child(pid);
    sweep(own_mark);
    std::string how = "its process ended";
    if (WIFSIGNALED(status)) how = std::string("its process was killed by signal ") + std::to_string(WTERMSIG(status));
    post([how](State& state) { state.ended(how); });
  }

  // A shim that was killed leaves orphans to us, the next sub-reaper, unless their parents died with it. Below them
  // too: the first thread of a process may be gone while another is still on its way out with the children. Those that
  // had ended before they came to us show no mark: they are waited for because nobody here started them.
  static void sweep(const std::string& own_mark) {
    const std::string entry = std::string(kMark) + "=" + own_mark;
    for (int round = 0; round < 1000; ++round) {
      bool any = false;
      for (const pid_t orphan : descendants(::getpid())) {
        const std::optional<bool> ours = has_environment(orphan, entry);
        if (ours && !*ours) continue;
        // One that is just ending may leave children of its own: only a round that saw nothing of the kind is the last.
        any = true;
        if (ours) ::kill(orphan, SIGKILL);
        if (!ours || ::waitpid(orphan, nullptr, 0) < 0) std::this_thread::sleep_for(milliseconds(1));
      }
      if (!reap_orphans()) {
        any = true;
        std::this_thread::sleep_for(milliseconds(1));
      }
      if (!any) return;
    }
  }

  void tell(const Json& line) {
    const std::string event = line.value("event", "");
    if (event == "booted") return handler->booted();
    if (event != "exited") return;
    ContainerExit exit;
    exit.exit_code = line.value("code", 0);
    exit.signal = line.value("signal", 0);
    exit.oom = line.value("oom", false);
    exit.start_failed = line.value("start_failed", false);
    exit.message = line.value("message", "");
    handler->exited(line.value("id", ""), exit);
  }

  void ended(const std::string& how) {
    if (reader.joinable()) reader.join();
    ::close(fd);
    fd = -1;
    shim = -1;
    handler->died(how);
  }

  void order(const Json& line) {
    if (fd < 0) return;
    const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t wrote = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) return;  // the reader finds out
      sent += static_cast<size_t>(wrote);
    }
  }

  void close_down() {
    handler = nullptr;
    if (fd < 0) return;
    ::shutdown(fd, SHUT_RDWR);
    // A shim that stands still (SIGSTOP from outside) hears nothing.
    if (shim > 0) ::kill(shim, SIGCONT);
    if (reader.joinable()) reader.join();
    ::close(fd);
    fd = -1;
    shim = -1;
  }
};

ProcessRuntime::ProcessRuntime(Loop& loop, ProcessRuntimeSettings settings, Logger log)
    : state_(std::make_shared<State>(loop, std::move(settings), std::move(log))) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
}

ProcessRuntime::~ProcessRuntime() { state_->close_down(); }

void ProcessRuntime::boot(Handler& handler) {
  state_->handler = &handler;
  ++state_->boots;
  if (const Status spawned = state_->spawn(); !spawned) {
    state_->log.error("a node can't be started", {{"error", spawned.error().message}});
    state_->post([message = spawned.error().message](State& state) { state.handler->died(message); });
    return;
  }
  state_->reader = std::thread([state = state_.get(), fd = state_->fd, pid = state_->shim.load(), mark = state_->mark] {
    state->read(fd, pid, mark);
  });
}

void ProcessRuntime::start(ContainerSpec spec) {
  Json env = spec.env;
  env[kMark] = state_->mark;
  state_->order({{"do", "start"},
                 {"id", spec.id},
                 {"argv", spec.argv},
                 {"env", std::move(env)},
                 {"folder", spec.folder},
                 {"log", spec.log_file}});
}

void ProcessRuntime::signal(const std::string& id, int number) {
  state_->order({{"do", "signal"}, {"id", id}, {"signal", number}});
}
void ProcessRuntime::kill(const std::string& id) { state_->order({{"do", "kill"}, {"id", id}}); }
void ProcessRuntime::freeze() { state_->order({{"do", "freeze"}}); }
void ProcessRuntime::power_off() { state_->order({{"do", "off"}}); }
int ProcessRuntime::pid() const { return state_->shim; }

}  // namespace pitcrew::local
