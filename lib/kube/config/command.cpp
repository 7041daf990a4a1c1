#include "lib/kube/config/command.hpp"

#include <cerrno>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace pitcrew::kube {
namespace {

constexpr size_t kErrorsKept = 2000;

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

struct Pipe {
  Descriptor read;
  Descriptor write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("make a pipe", errno);
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& added) {
  std::vector<std::string> texts;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    // Set by the cpprestsdk transport for this process alone.
    bool replaced = text == "SSL_CERT_FILE=/dev/null" || text == "SSL_CERT_DIR=/dev/null";
    for (const auto& [key, value] : added) replaced = replaced || key == name;
    if (!replaced) texts.emplace_back(text);
  }
  for (const auto& [key, value] : added) texts.push_back(key + "=" + value);
  return texts;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

class Running final : public Command {
 public:
  Running(net::AsioLoop& loop, CommandSettings settings, std::function<void(Result<CommandResult>)> done)
      : loop_(loop), settings_(std::move(settings)), done_(std::move(done)) {}

  ~Running() override {
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    int ignored = 0;
    ::waitpid(pid_, &ignored, 0);
  }

  void begin() {
    if (Status started = start(); !started) {
      timer_ = loop_.after(Duration(0), [this, error = started.error()] { finish(error); });
    }
  }

 private:
  std::string what() const { return "run '" + settings_.argv.front() + "'"; }

  Status start() {
    PITCREW_ASSIGN(Pipe out, make_pipe());
    PITCREW_ASSIGN(Pipe err, make_pipe());
    std::vector<std::string> env = environment_with(settings_.env);
    std::vector<char*> envp = pointers_to(env);
    std::vector<char*> argv = pointers_to(settings_.argv);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out.write.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err.write.get(), 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    const int error = ::posix_spawnp(&pid_, argv[0], &actions, &attributes, argv.data(), envp.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) {
      pid_ = 0;
      return errno_error(what(), error);
    }
    out_ = std::move(out.read);
    err_ = std::move(err.read);
    process_ = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (process_.get() < 0) return errno_error(what() + ": watch it", errno);
    using Ready = net::AsioLoop::Ready;
    PITCREW_ASSIGN(out_watch_, loop_.watch_fd(out_.get(), Ready::kRead, [this] {
      if (!drain(out_, result_.output)) out_watch_.reset();
      if (result_.output.size() > settings_.max_output) too_much();
    }));
    PITCREW_ASSIGN(err_watch_, loop_.watch_fd(err_.get(), Ready::kRead, [this] {
      if (!drain_errors()) err_watch_.reset();
    }));
    PITCREW_ASSIGN(end_watch_, loop_.watch_fd(process_.get(), Ready::kRead, [this] { ended(); }));
    timer_ = loop_.after(settings_.timeout, [this] {
      finish(Error(Code::kDeadlineExceeded, what() + ": it didn't end in " + to_string(settings_.timeout)));
    });
    return {};
  }

  // False at the end of what is written to it.
  static bool drain(const Descriptor& from, std::string& into) {
    char piece[16 * 1024];
    const ssize_t size = ::read(from.get(), piece, sizeof piece);
    if (size > 0) into.append(piece, static_cast<size_t>(size));
    return size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR));
  }
  bool drain_errors() {
    const bool more = drain(err_, result_.errors);
    if (result_.errors.size() > kErrorsKept) result_.errors.erase(0, result_.errors.size() - kErrorsKept);
    return more;
  }
  void too_much() {
    finish(Error(Code::kResourceExhausted,
                 what() + ": it wrote more than " + std::to_string(settings_.max_output) + " bytes"));
  }

  void ended() {
    size_t before = 0;
    do {
      before = result_.output.size();
      drain(out_, result_.output);
    } while (result_.output.size() != before && result_.output.size() <= settings_.max_output);
    drain_errors();
    if (result_.output.size() > settings_.max_output) return too_much();
    int status = 0;
    ::waitpid(std::exchange(pid_, 0), &status, 0);
    result_.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    finish(std::move(result_));
  }

  void finish(Result<CommandResult> result) {
    timer_.reset();
    out_watch_.reset();
    err_watch_.reset();
    end_watch_.reset();
    // It may destroy this.
    const auto done = std::exchange(done_, nullptr);
    if (done) done(std::move(result));
  }

  net::AsioLoop& loop_;
  CommandSettings settings_;
  std::function<void(Result<CommandResult>)> done_;
  CommandResult result_;
  pid_t pid_ = 0;
  Descriptor out_;
  Descriptor err_;
  Descriptor process_;
  net::AsioLoop::WatchPtr out_watch_;
  net::AsioLoop::WatchPtr err_watch_;
  net::AsioLoop::WatchPtr end_watch_;
  Loop::TimerPtr timer_;
};

}  // namespace

std::unique_ptr<Command> Command::run(net::AsioLoop& loop, CommandSettings settings,
                                      std::function<void(Result<CommandResult>)> done) {
  auto command = std::make_unique<Running>(loop, std::move(settings), std::move(done));
  command->begin();
  return command;
}

}  // namespace pitcrew::kube
