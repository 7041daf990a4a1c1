#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "lib/base/time.hpp"

namespace pitcrew::control {

// How many nodes may be checked at once: `nodes`, or `fraction` of those that have an agent, whichever is more. A check
// takes a whole node from jobs for minutes, and after a fault of many nodes all of them are due.
struct CheckLimit {
  uint32_t nodes = 2;  // 1 or more
  double fraction = 0.1;
  bool operator==(const CheckLimit&) const = default;
};
size_t checks_at_once(const CheckLimit& limit, size_t nodes);

// A node whose check could begin now.
struct DueCheck {
  std::string health;      // name of its NodeHealth
  bool requested = false;  // by a person; else after a fault
  Instant since;           // of the fault
};

// Which of them begin, where `running` checks run already: what people asked for first, then the oldest fault. Pure.
std::set<std::string> checks_to_begin(std::vector<DueCheck> due, size_t running, size_t limit);

}  // namespace pitcrew::control
