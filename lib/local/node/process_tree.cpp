#include "lib/local/node/process_tree.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace pitcrew::local {
namespace {

std::string read_small_file(const std::string& path, size_t limit = 1 << 20) {
  std::string text;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  while (text.size() < limit) {
    const ssize_t got = ::read(fd, buffer, sizeof(buffer));
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  ::close(fd);
  return text;
}

struct ProcessLine {
  pid_t pid = 0;
  pid_t parent = 0;
  char state = '?';
};

// "pid (comm) state ppid …": comm may hold anything, so the last ')' counts.
bool parse_stat(const std::string& text, ProcessLine& line) {
  const size_t end = text.rfind(')');
  if (end == std::string::npos || end + 4 > text.size()) return false;
  line.pid = std::atoi(text.c_str());
  line.state = text[end + 2];
  line.parent = std::atoi(text.c_str() + end + 4);
  return line.pid > 0;
}

std::vector<ProcessLine> all_processes() {
  std::vector<ProcessLine> lines;
  DIR* folder = ::opendir("/proc");
  if (folder == nullptr) return lines;
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    ProcessLine line;
    if (parse_stat(read_small_file(std::string("/proc/") + entry->d_name + "/stat", 4096), line)) lines.push_back(line);
  }
  ::closedir(folder);
  return lines;
}

std::vector<ProcessLine> living_descendants(pid_t root) {
  std::multimap<pid_t, ProcessLine> by_parent;
  for (const ProcessLine& line : all_processes()) by_parent.emplace(line.parent, line);
  std::vector<ProcessLine> found;
  std::vector<pid_t> open{root};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    auto [first, last] = by_parent.equal_range(parent);
    for (; first != last; ++first) {
      open.push_back(first->second.pid);
      if (first->second.state != 'Z' && first->second.state != 'X') found.push_back(first->second);
    }
  }
  return found;
}

void pause_briefly() {
  const timespec pause{0, 2'000'000};
  ::nanosleep(&pause, nullptr);
}

}  // namespace

std::vector<pid_t> descendants(pid_t root) {
  std::vector<pid_t> pids;
  for (const ProcessLine& line : living_descendants(root)) pids.push_back(line.pid);
  return pids;
}

std::vector<pid_t> children(pid_t parent) {
  std::vector<pid_t> pids;
  for (const ProcessLine& line : all_processes()) {
    if (line.parent == parent && line.state != 'Z' && line.state != 'X') pids.push_back(line.pid);
  }
  return pids;
}

std::vector<pid_t> zombies(pid_t parent) {
  std::vector<pid_t> pids;
  for (const ProcessLine& line : all_processes()) {
    if (line.parent == parent && line.state == 'Z') pids.push_back(line.pid);
  }
  return pids;
}

bool kill_descendants(pid_t root, int rounds, const std::vector<pid_t>& keep) {
  const auto kept = [&](pid_t pid) { return std::find(keep.begin(), keep.end(), pid) != keep.end(); };
  for (int round = 0; round < rounds; ++round) {
    bool any = false;
    for (const pid_t pid : descendants(root)) {
      if (kept(pid)) continue;
      any = true;
      ::kill(pid, SIGKILL);
    }
    if (!any) return true;
    if (root == ::getpid()) {
      siginfo_t info{};
      while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 && !kept(info.si_pid)) {
        ::waitpid(info.si_pid, nullptr, WNOHANG);
        info.si_pid = 0;
      }
    }
    pause_briefly();
  }
  return false;
}

void stop_descendants(pid_t root) {
  for (int round = 0; round < 50; ++round) {
    bool any = false;
    for (const ProcessLine& line : living_descendants(root)) {
      if (line.state == 'T' || line.state == 't') continue;
      any = true;
      ::kill(line.pid, SIGSTOP);
    }
    if (!any) return;
  }
}

std::optional<bool> has_environment(pid_t pid, const std::string& entry) {
  const std::string text = read_small_file("/proc/" + std::to_string(pid) + "/environ");
  if (text.empty()) return std::nullopt;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\0', at);
    if (end == std::string::npos) end = text.size();
    if (text.compare(at, end - at, entry) == 0) return true;
    at = end + 1;
  }
  return false;
}

unsigned long oom_kills() {
  const std::string text = read_small_file("/proc/vmstat");
  const size_t at = text.find("\noom_kill ");
  return at == std::string::npos ? 0 : std::strtoul(text.c_str() + at + 10, nullptr, 10);
}

}  // namespace pitcrew::local
