#include "lib/local/node/container_shim.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/local/node/process_tree.hpp"

namespace pitcrew::local {
namespace {

// What went wrong before exec, as it travels through the pipe.
struct StartFailure {
  int number = 0;
  char step[28] = {};
};

[[noreturn]] void give_up(int pipe_fd, const char* step) {
  StartFailure failure;
  failure.number = errno;
  std::strncpy(failure.step, step, sizeof(failure.step) - 1);
  [[maybe_unused]] const ssize_t written = ::write(pipe_fd, &failure, sizeof(failure));
  ::_exit(127);
}

struct Arguments {
  std::vector<std::string> env_text;
  std::vector<char*> argv;
  std::vector<char*> envp;
};

Arguments make_arguments(const ContainerSpec& spec) {
  Arguments made;
  for (const auto& [name, value] : spec.env) made.env_text.push_back(name + "=" + value);
  for (const std::string& text : spec.argv) made.argv.push_back(const_cast<char*>(text.c_str()));
  made.argv.push_back(nullptr);
  for (const std::string& text : made.env_text) made.envp.push_back(const_cast<char*>(text.c_str()));
  made.envp.push_back(nullptr);
  return made;
}

[[noreturn]] void become_container(const ContainerSpec& spec, Arguments& arguments, int pipe_fd, pid_t shim) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) give_up(pipe_fd, "prctl");
  if (::getppid() != shim) ::_exit(137);  // the shim died before the line above
  ::setsid();
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) {
    if (number != SIGKILL && number != SIGSTOP) ::sigaction(number, &usual, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int in = ::open("/dev/null", O_RDONLY);
  if (in < 0 || ::dup2(in, 0) < 0) give_up(pipe_fd, "open /dev/null");
  const char* log = spec.log_file.empty() ? "/dev/null" : spec.log_file.c_str();
  const int out = ::open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (out < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) give_up(pipe_fd, "open the log file");
  if (in > 2) ::close(in);
  if (out > 2) ::close(out);
  if (::chdir(spec.folder.empty() ? "/" : spec.folder.c_str()) != 0) give_up(pipe_fd, "change folder");
  ::environ = arguments.envp.data();
  ::execvp(arguments.argv[0], arguments.argv.data());
  give_up(pipe_fd, "execute");
}

// Ends this process the way the container ended.
[[noreturn]] void mirror(int status) {
  if (WIFEXITED(status)) ::_exit(WEXITSTATUS(status));
  const int number = WTERMSIG(status);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  ::sigaction(number, &usual, nullptr);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, number);
  ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
  ::kill(::getpid(), number);
  ::_exit(128 + number);
}

[[noreturn]] void run_shim(const ContainerSpec& spec, int pipe_fd, pid_t node) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != node) ::_exit(137);
  ::setsid();
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t handled;
  ::sigemptyset(&handled);
  for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE}) ::sigaddset(&handled, number);
  ::sigprocmask(SIG_SETMASK, &handled, nullptr);

  Arguments arguments = make_arguments(spec);
  const pid_t self = ::getpid();
  const pid_t first = ::fork();
  if (first < 0) give_up(pipe_fd, "fork");
  if (first == 0) become_container(spec, arguments, pipe_fd, self);
  ::close(pipe_fd);

  while (true) {
    siginfo_t info{};
    const int number = ::sigwaitinfo(&handled, &info);
    if (number < 0 || number == SIGPIPE) continue;
    if (number != SIGCHLD) {
      ::kill(first, number);
      continue;
    }
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != first) continue;
      kill_descendants(self);
      mirror(status);
    }
  }
}

}  // namespace

StartedContainer start_container(const ContainerSpec& spec, int close_fd) {
  if (spec.argv.empty()) return {-1, "the container has no command"};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {-1, std::string("pipe: ") + std::strerror(errno)};
  const pid_t node = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) {
    const std::string error = std::string("fork: ") + std::strerror(errno);
    ::close(ends[0]);
    ::close(ends[1]);
    return {-1, error};
  }
  if (pid == 0) {
    ::close(ends[0]);
    ::close(close_fd);
    run_shim(spec, ends[1], node);
  }
  ::close(ends[1]);
  StartFailure failure;
  ssize_t got = 0;
  do {
    got = ::read(ends[0], &failure, sizeof(failure));
  } while (got < 0 && errno == EINTR);
  ::close(ends[0]);
  if (got != static_cast<ssize_t>(sizeof(failure))) return {pid, ""};
  int status = 0;
  ::waitpid(pid, &status, 0);
  return {-1, "cannot " + std::string(failure.step) + " '" + spec.argv[0] + "': " + std::strerror(failure.number)};
}

}  // namespace pitcrew::local
