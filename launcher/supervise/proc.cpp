#include "launcher/supervise/proc.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <memory>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "launcher/supervise/text.hpp"

namespace pitcrew::launcher {
namespace {

constexpr size_t kMostBytes = 64 * 1024;
constexpr size_t kMostThreads = 64;

std::vector<pid_t> numeric_entries(const std::string& folder) {
  std::vector<pid_t> numbers;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(folder.c_str()), closedir);
  if (!dir) return numbers;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    pid_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && end == name.data() + name.size()) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// The fields after the name, which itself may hold spaces and parentheses (proc(5), /proc/pid/stat).
std::string_view after_name(std::string_view stat) {
  const size_t end = stat.rfind(')');
  return end == std::string_view::npos || end + 2 > stat.size() ? std::string_view() : stat.substr(end + 2);
}

pid_t parent_of(pid_t pid) {
  const std::string stat = read_proc("/proc/" + std::to_string(pid) + "/stat");
  const std::string_view fields = after_name(stat);  // "S 123 …"
  pid_t parent = 0;
  if (fields.size() > 2) std::from_chars(fields.data() + 2, fields.data() + fields.size(), parent);
  return parent;
}

std::string first_line(const std::string& path) {
  std::string text = read_proc(path);
  text.resize(std::min(text.find('\n'), text.size()));
  return clean_text(text);
}

// "SigCgt:\t0000000000000000" of a status file.
std::string status_field(pid_t pid, std::string_view name) {
  const std::string status = read_proc("/proc/" + std::to_string(pid) + "/status");
  const std::string key = "\n" + std::string(name) + ":";
  const size_t at = status.find(key);
  if (at == std::string::npos) return {};
  size_t begin = at + key.size();
  while (begin < status.size() && std::isspace(static_cast<unsigned char>(status[begin]))) ++begin;
  return status.substr(begin, std::min(status.find('\n', begin), status.size()) - begin);
}

}  // namespace

std::string read_proc(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  ssize_t got = 0;
  while (text.size() < kMostBytes && (got = read(fd, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<size_t>(got));
  close(fd);
  return text;
}

std::vector<pid_t> descendants_of(pid_t ancestor) {
  std::multimap<pid_t, pid_t> children;
  for (const pid_t pid : numeric_entries("/proc")) children.emplace(parent_of(pid), pid);
  std::vector<pid_t> found;
  std::vector<pid_t> open{ancestor};
  while (!open.empty()) {
    const auto [begin, end] = children.equal_range(open.back());
    open.pop_back();
    for (auto child = begin; child != end; ++child) {
      found.push_back(child->second);
      open.push_back(child->second);
    }
    // A pid that is taken again while we look must not lead in a circle.
    children.erase(begin, end);
  }
  return found;
}

std::string describe_process(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  const std::string stat = read_proc(folder + "/stat");
  const std::string_view fields = after_name(stat);
  std::string text = "pid " + std::to_string(pid) + " " + first_line(folder + "/comm");
  if (fields.empty()) return text;
  text += " (" + std::string(fields.substr(0, 1));
  const std::string place = first_line(folder + "/wchan");
  if (!place.empty() && place != "0") text += ", in " + place;
  return text + ")";
}

bool catches_signal(pid_t pid, int signal) {
  const std::string mask = status_field(pid, "SigCgt");
  uint64_t bits = 0;
  if (std::from_chars(mask.data(), mask.data() + mask.size(), bits, 16).ec != std::errc()) return false;
  return (bits >> (signal - 1) & 1) != 0;
}

std::string kernel_stacks(pid_t pid, size_t limit) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  std::string text;
  size_t shown = 0;
  const auto threads = numeric_entries(tasks);
  for (const pid_t thread : threads) {
    if (shown == kMostThreads || text.size() > limit) break;
    ++shown;
    const std::string folder = tasks + "/" + std::to_string(thread);
    const std::string stat = read_proc(folder + "/stat");
    const std::string_view fields = after_name(stat);
    if (fields.empty()) continue;
    text += "thread " + std::to_string(thread) + " " + first_line(folder + "/comm") + ": state " +
            std::string(fields.substr(0, 1));
    if (const std::string place = first_line(folder + "/wchan"); !place.empty() && place != "0")
      text += ", waits in " + place;
    if (const std::string call = first_line(folder + "/syscall"); !call.empty()) text += ", system call " + call;
    text += "\n";
    const std::string stack = clean_text(read_proc(folder + "/stack"));
    for (size_t at = 0; at < stack.size();) {
      const size_t end = std::min(stack.find('\n', at), stack.size());
      text += "  " + stack.substr(at, end - at) + "\n";
      at = end + 1;
    }
  }
  if (shown < threads.size()) text += "… and " + std::to_string(threads.size() - shown) + " more threads\n";
  return shorten(std::move(text), limit);
}

uint64_t anonymous_memory(pid_t pid) {
  const std::string field = status_field(pid, "RssAnon");  // "1234 kB"
  uint64_t kilobytes = 0;
  std::from_chars(field.data(), field.data() + field.size(), kilobytes);
  return kilobytes * 1024;
}

}  // namespace pitcrew::launcher
