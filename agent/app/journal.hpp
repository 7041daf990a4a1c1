#pragma once

#include <optional>
#include <string>

#include "agent/probe/kernel_log/reader.hpp"
#include "lib/api/node_health.hpp"
#include "lib/base/file.hpp"

namespace pitcrew::agent {

// What an agent keeps on its machine over a restart: how far the kernel log was read, together with what was judged of
// it, so that no line is judged twice and none is left out. Written whole or not at all.
struct Journal {
  std::optional<kernel_log::Position> position;
  Instant booted;       // as it was told first in this boot: times of lines don't move with the machine's clock
  std::string cleared;  // the last request-clear that was carried out
  api::NodeHealthStatus health;  // bootID, GPUs, history and memory of it
};

std::string to_text(const Journal& journal);
Result<Journal> parse_journal(std::string_view text);

// Nothing where there is no file; an error where it can't be read or understood, with what happens then.
Result<std::optional<Journal>> read_journal(FileSystem& files, const std::string& folder);
Status write_journal(FileSystem& files, const std::string& folder, const Journal& journal);

}  // namespace pitcrew::agent
