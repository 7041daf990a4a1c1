#include "lib/local/node/own_children.hpp"

#include <cerrno>
#include <mutex>
#include <set>

#include <sys/wait.h>
#include <unistd.h>

#include "lib/local/node/process_tree.hpp"

namespace pitcrew::local {
namespace {

struct Own {
  std::mutex mutex;
  std::set<pid_t> pids;
};

Own& own() {
  static Own own;
  return own;
}

}  // namespace

pid_t start_child(const std::function<pid_t()>& start) {
  // Under the lock: one that ends at once is known before anybody looks for orphans.
  const std::lock_guard lock(own().mutex);
  const pid_t pid = start();
  if (pid > 0) own().pids.insert(pid);
  return pid;
}

int wait_for_child(pid_t pid) {
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  // Its number is free for others once it is waited for.
  const std::lock_guard lock(own().mutex);
  int status = 0;
  ::waitpid(pid, &status, 0);
  own().pids.erase(pid);
  return status;
}

bool reap_orphans() {
  bool all = true;
  for (const pid_t pid : zombies(::getpid())) {
    const std::lock_guard lock(own().mutex);
    // 0: its first thread has ended, others have not.
    if (!own().pids.contains(pid) && ::waitpid(pid, nullptr, WNOHANG) == 0) all = false;
  }
  return all;
}

}  // namespace pitcrew::local
