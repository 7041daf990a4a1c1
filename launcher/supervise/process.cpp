#include "launcher/supervise/process.hpp"

#include <cerrno>
#include <csignal>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace pitcrew::launcher {
namespace {

struct Pipe {
  Descriptor read;
  Descriptor write;
};

Result<Pipe> make_pipe(std::string_view what) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return errno_error("make a pipe for " + std::string(what), errno);
  Pipe pipe{Descriptor(ends[0]), Descriptor(ends[1])};
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return pipe;
}

std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// What execvp would try, with the PATH that the program will have.
std::vector<std::string> candidates(const Program& program) {
  const std::string& name = program.command[0];
  if (name.find('/') != std::string::npos) return {name};
  std::string_view path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  for (const std::string& variable : program.environment) {
    if (variable.starts_with("PATH=")) path = std::string_view(variable).substr(5);
  }
  std::vector<std::string> found;
  while (true) {
    const size_t end = path.find(':');
    const std::string_view folder = path.substr(0, end);
    found.push_back((folder.empty() ? "." : std::string(folder)) + "/" + name);
    if (end == std::string_view::npos) return found;
    path.remove_prefix(end + 1);
  }
}

// In the child, between fork and exec: system calls and nothing else, since other threads may have held locks.
[[noreturn]] void run_child(const std::vector<std::string>& files, char* const* arguments, char* const* environment,
                            int output, int error, int null, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    if (signal != SIGKILL && signal != SIGSTOP) sigaction(signal, &action, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(null, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  // Whatever a library of ours opened without O_CLOEXEC.
  close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  int number = ENOENT;
  for (const std::string& file : files) {
    execve(file.c_str(), arguments, environment);
    if (errno != ENOENT && errno != ENOTDIR) number = errno;
  }
  [[maybe_unused]] const ssize_t written = write(error, &number, sizeof number);
  _exit(127);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

void Descriptor::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

Result<Process> start_process(const Program& program) {
  if (program.command.empty()) return Error(Code::kInvalidArgument, "start a process: the command is empty");
  PITCREW_ASSIGN(Pipe output, make_pipe("a rank's output"));
  PITCREW_ASSIGN(Pipe error, make_pipe("a rank's start"));
  const Descriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto files = candidates(program);
  const auto arguments = pointers_to(program.command);
  const auto environment = pointers_to(program.environment);
  const pid_t self = getpid();

  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0)
    run_child(files, arguments.data(), environment.data(), output.write.get(), error.write.get(), null.get(), self);
  const int number = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return errno_error("start '" + program.command[0] + "': fork", number);
  setpgid(pid, pid);  // also here: whoever kills the group must not be earlier than the child
  return Process{pid, std::move(output.read), std::move(error.read)};
}

std::optional<int> read_exec_error(const Process& process) {
  int number = 0;
  if (read(process.exec_error.get(), &number, sizeof number) == static_cast<ssize_t>(sizeof number)) return number;
  return std::nullopt;
}

}  // namespace pitcrew::launcher
