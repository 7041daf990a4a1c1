#include "launcher/supervise/exit_cause.hpp"

#include <charconv>
#include <csignal>
#include <cstring>
#include <utility>

#include <sys/wait.h>

#include "launcher/supervise/proc.hpp"
#include "launcher/supervise/text.hpp"
#include "lib/base/environment.hpp"

namespace pitcrew::launcher {
namespace {

using api::channel::ExitKind;

std::string_view meaning_of(int code) {
  switch (code) {
    case exit_code::kBadConfiguration:
      return "bad configuration";
    case exit_code::kBadData:
      return "bad data";
    case exit_code::kTryAgain:
      return "asks to be tried again";
    case exit_code::kReplaceNode:
      return "asks for another node";
    case 126:
      return "not executable, if a shell said so";
    case 127:
      return "not found, if a shell said so";
    default:
      return {};
  }
}

// The last line that isn't empty, cut to what a status may hold of it.
std::string last_word(const std::vector<std::string>& lines) {
  constexpr size_t kBytes = 300;
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    if (line->find_first_not_of(" \t\r") != std::string::npos) return shorten(*line, kBytes);
  }
  return {};
}

}  // namespace

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? "SIG" + std::string(name) : "signal " + std::to_string(signal);
}

ExitCause name_exit(const ExitFacts& facts) {
  ExitCause cause;
  cause.last_lines = last_lines(facts.output);
  if (facts.exec_errno) {
    cause.kind = ExitKind::kStartFailed;
    cause.code = 127;
    cause.reason = "could not start '" + facts.program + "': " + std::strerror(*facts.exec_errno) +
                   "; check the container's command and its image";
    return cause;
  }
  cause.exception = last_exception(facts.output);
  if (WIFSIGNALED(facts.wait_status)) {
    cause.kind = ExitKind::kSignaled;
    cause.code = WTERMSIG(facts.wait_status);
    cause.reason = "killed by " + signal_name(cause.code);
    if (cause.code == SIGKILL && facts.oom_kills > 0) {
      cause.kind = ExitKind::kOom;
      cause.reason = "out of memory: the kernel killed " + std::to_string(facts.oom_kills) +
                     " process(es) of the container; raise its memory limit or lower what the program holds";
    }
  } else {
    cause.code = WEXITSTATUS(facts.wait_status);
    cause.reason = "exit code " + std::to_string(cause.code);
    if (const auto meaning = meaning_of(cause.code); !meaning.empty())
      cause.reason += " (" + std::string(meaning) + ")";
    // A shell in between turns its child's signal into a code (POSIX: above 128).
    if (cause.code == 128 + SIGKILL && facts.oom_kills > 0) {
      cause.kind = ExitKind::kOom;
      cause.reason = "out of memory: a child of the program was killed by the kernel (exit code 137)";
    }
  }
  if (!cause.exception.empty()) {
    cause.reason += ": " + cause.exception;
  } else if (cause.kind == ExitKind::kExited && cause.code != 0) {
    // What it said last is most often why, and outlives its pod in the job's status.
    if (std::string last = last_word(cause.last_lines); !last.empty()) cause.reason += ": " + std::move(last);
  }
  return cause;
}

std::optional<uint64_t> parse_oom_kills(std::string_view text) {
  constexpr std::string_view kKey = "oom_kill ";
  for (size_t at = text.find(kKey); at != std::string_view::npos; at = text.find(kKey, at + 1)) {
    if (at != 0 && text[at - 1] != '\n') continue;
    uint64_t value = 0;
    const char* begin = text.data() + at + kKey.size();
    if (std::from_chars(begin, text.data() + text.size(), value).ec == std::errc()) return value;
  }
  return std::nullopt;
}

uint64_t read_oom_kills() {
  std::string path;  // of the memory controller: "0::/a/b" (v2), "5:memory:/a/b" (v1)
  const std::string cgroup = read_proc("/proc/self/cgroup");
  for (size_t at = 0; at < cgroup.size();) {
    const size_t end = std::min(cgroup.find('\n', at), cgroup.size());
    const std::string_view line = std::string_view(cgroup).substr(at, end - at);
    at = end + 1;
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (controllers.empty() || controllers.find("memory") != std::string_view::npos) path = line.substr(second + 1);
  }
  // Inside a container the cgroup is usually the mount's root.
  for (const std::string& file :
       {"/sys/fs/cgroup" + path + "/memory.events", std::string("/sys/fs/cgroup/memory.events"),
        "/sys/fs/cgroup/memory" + path + "/memory.oom_control",
        std::string("/sys/fs/cgroup/memory/memory.oom_control")}) {
    if (const auto kills = parse_oom_kills(read_proc(file))) return *kills;
  }
  return 0;
}

}  // namespace pitcrew::launcher
