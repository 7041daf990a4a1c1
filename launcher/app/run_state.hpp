#pragma once

#include <string>

#include "launcher/progress/rhythm.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew::launcher {

// What a launcher must still know after its own restart in its pod: the highest epoch it has seen, and the job's
// rhythm. In one small file of the run folder, replaced whole; it need not survive the node.
struct RunState {
  EpochId seen;
  Rhythm rhythm;

  static RunState load(const std::string& folder);
  Status save(const std::string& folder) const;
};

}  // namespace pitcrew::launcher
