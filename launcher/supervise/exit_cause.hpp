#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/api/channel.hpp"

namespace pitcrew::launcher {

// What is known of a rank's end.
struct ExitFacts {
  int wait_status = 0;            // as waitpid gave it
  std::optional<int> exec_errno;  // the program never started
  std::string program;
  uint64_t oom_kills = 0;   // in the container's cgroup since the epoch began
  std::string_view output;  // the last of it
};

struct ExitCause {
  api::channel::ExitKind kind = api::channel::ExitKind::kExited;
  int code = 0;  // exit code or signal
  std::string reason;
  std::vector<std::string> last_lines;
  std::string exception;
};

// Names why a rank ended. Pure.
ExitCause name_exit(const ExitFacts& facts);

// "SIGSEGV"; "signal 42" where it has no name.
std::string signal_name(int signal);

// The number of processes that the kernel has killed for memory in this process's cgroup: memory.events (v2) or
// memory.oom_control (v1), 0 where neither can be read.
uint64_t read_oom_kills();
// The value of "oom_kill" in the text of either file.
std::optional<uint64_t> parse_oom_kills(std::string_view text);

}  // namespace pitcrew::launcher
