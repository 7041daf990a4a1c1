#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/probe/exec/exec.hpp"

namespace pitcrew::agent::exec {
namespace {

using Steady = std::chrono::steady_clock;

Error failed(const Program& program, const std::string& what, int error) {
  return Error(Code::kUnavailable, what + " " + program.command[0] + ": " + std::strerror(error));
}

struct Pipe {
  int ends[2] = {-1, -1};
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  void close_end(int end) {
    if (ends[end] >= 0) ::close(ends[end]);
    ends[end] = -1;
  }
};

Result<pid_t> start(const Program& program, Pipe& out) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<char*> arguments;
  for (const std::string& word : program.command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  // Nothing of the agent's environment is the program's business.
  char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  std::vector<char*> environment{path};
  for (const std::string& variable : program.environment) environment.push_back(const_cast<char*>(variable.c_str()));
  environment.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, arguments[0], &actions, &attributes, arguments.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return failed(program, "start", error);
  return pid;
}

// Reads until the other end is closed or the time is up; false: it is up.
bool drain(int fd, Steady::time_point until, size_t most, std::string& output) {
  char buffer[1024];
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Steady::now()).count();
    if (left <= 0) return false;
    pollfd wait{fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return true;
    if (ready <= 0) continue;
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got == 0 || (got < 0 && errno != EINTR)) return true;
    // What is too much is read and forgotten, so that the program does not wait for us.
    if (got > 0) output.append(buffer, std::min(static_cast<size_t>(got), most - output.size()));
  }
}

// Waits until the process has ended and leaves it to be reaped, so that its group's number stays its own; false where
// it has not ended by then.
bool ended(pid_t pid, Steady::time_point until) {
  auto pause = std::chrono::milliseconds(1);
  while (true) {
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
      return true;
    if (Steady::now() >= until) return false;
    ::poll(nullptr, 0, static_cast<int>(pause.count()));
    pause = std::min(pause * 2, std::chrono::milliseconds(50));
  }
}

}  // namespace

Status Program::validate() const {
  const auto wrong = [&](const std::string& what) {
    return Error(Code::kInvalidArgument, "exec probe \"" + name + "\": " + what);
  };
  if (name.empty() || name.size() > 40) return wrong("its name must have 1 to 40 characters");
  for (const char c : name) {
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
      return wrong("its name may have a-z, 0-9 and dashes");
    }
  }
  if (command.empty() || !command[0].starts_with('/')) return wrong("its command must begin with a path from the root");
  if (timeout <= Duration(0) || timeout > minutes(5)) return wrong("its timeout must be above 0 and at most 5m");
  if (every < timeout || every < seconds(1)) return wrong("it must not come more often than its timeout, or than 1s");
  return {};
}

Result<Outcome> run(const Program& program) {
  const auto until = Steady::now() + program.timeout;
  Pipe out;
  if (::pipe2(out.ends, O_CLOEXEC) != 0) return failed(program, "make a pipe for", errno);
  PITCREW_ASSIGN(const pid_t pid, start(program, out));
  out.close_end(1);
  Outcome outcome;
  const bool drained = drain(out.ends[0], until, program.most_output, outcome.output);
  outcome.late = !drained || !ended(pid, until);
  ::kill(-pid, SIGKILL);  // and whatever it has started
  constexpr auto kGrace = std::chrono::seconds(2);
  if (outcome.late && !ended(pid, Steady::now() + kGrace)) {
    return Error(Code::kDeadlineExceeded, program.command[0] + " does not end when killed; it hangs in the kernel");
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.code = 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace pitcrew::agent::exec
