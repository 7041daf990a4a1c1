#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/random.hpp"
#include "lib/base/result.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew::cli {

// A failure that `pitcrew run --chaos` makes.
enum class ChaosKind {
  kKillNode,      // everything on a node stands still at once, its memory is gone; 30 s later it is off
  kKillRank,      // SIGKILL to a rank
  kHang,          // SIGSTOP to one rank inside a step
  kKillLauncher,  // SIGKILL to a launcher
};
std::string_view to_string(ChaosKind kind);  // kill-node …

struct ChaosEvent {
  ChaosKind kind = ChaosKind::kKillRank;
  Step step;  // made when the job has done so many steps
  bool operator==(const ChaosEvent&) const = default;
};

// The failures of a run, in the order of their steps. A value.
class ChaosPlan {
 public:
  // "kill-node@60,kill-rank@120,hang@180,kill-launcher@240", "random:SEED", or "" for none.
  static Result<ChaosPlan> parse(std::string_view text);

  bool empty() const { return !random_ && events_.empty(); }
  // The next failure that is due at this step, taken out of the plan. A random plan never ends: between two failures it
  // leaves 40 to 119 steps.
  std::optional<ChaosEvent> due(Step step);

 private:
  void draw(Step from);

  std::vector<ChaosEvent> events_;  // ascending
  std::optional<Random> random_;
};

}  // namespace pitcrew::cli
