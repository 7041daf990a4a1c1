#include "cli/run/guard.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/local/node/own_children.hpp"
#include "lib/local/node/process_tree.hpp"

extern char** environ;

namespace pitcrew::cli {
namespace {

constexpr Duration kStartAgainAfter = milliseconds(200);

std::vector<pid_t> marked(const std::string& mark) {
  std::vector<pid_t> found;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return found;
  while (const dirent* entry = readdir(proc)) {
    const pid_t pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid > 1 && pid != getpid() && local::has_environment(pid, mark).value_or(false)) found.push_back(pid);
  }
  closedir(proc);
  return found;
}

}  // namespace

std::string run_mark(const std::string& run_id) { return "PITCREW_RUN=" + run_id; }

Guard::Guard(net::AsioLoop& loop, std::string run_id, std::string memory_folder)
    : loop_(loop), run_id_(std::move(run_id)), memory_folder_(std::move(memory_folder)) {
  start();
}

Guard::~Guard() {
  watch_.reset();
  if (pipe_ >= 0) close(pipe_);
  if (pid_ > 0) local::wait_for_child(pid_);
}

void Guard::start() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);  // the terminal's Ctrl-C is not for it
  std::string program = "/proc/self/exe", command = "run-guard", fd = "3";
  char* argv[] = {program.data(), command.data(), fd.data(), run_id_.data(), memory_folder_.data(), nullptr};
  pid_ = local::start_child([&] {
    pid_t pid = -1;
    return posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv, environ) == 0 ? pid : -1;
  });
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(ends[1]);
  if (pid_ < 0) {
    close(ends[0]);
    return;
  }
  pipe_ = ends[0];
  // Its end closes ours: somebody killed it.
  auto watch = loop_.watch_fd(pipe_, net::AsioLoop::Ready::kRead, [this] {
    again_ = loop_.after(kStartAgainAfter, [this] {
      local::wait_for_child(pid_);
      start();
    });
    close(pipe_);
    pipe_ = -1;
    watch_.reset();
  });
  if (watch) watch_ = std::move(*watch);
}

int guard_main(int fd, const std::string& run_id, const std::string& memory_folder) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) signal(number, SIG_IGN);
  char byte = 0;
  while (read(fd, &byte, 1) < 0 && errno == EINTR) {
  }
  const std::string mark = run_mark(run_id);
  // What is forked while we kill is found in the next round.
  for (int round = 0; round < 200; ++round) {
    const std::vector<pid_t> left = marked(mark);
    if (left.empty()) break;
    for (const pid_t pid : left) kill(pid, SIGKILL);
    usleep(20'000);
  }
  std::error_code ignored;
  std::filesystem::remove_all(memory_folder, ignored);
  return 0;
}

}  // namespace pitcrew::cli
