#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/api/node_health.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew::control {

// What one node of a job says about the network.
struct EfaReport {
  Slot slot;
  std::string node;
  std::vector<api::DeviceRate> rates;  // counters above a rule's limit, from its NodeHealth
  std::vector<Slot> unreachable;       // peers that its launcher can't reach now
};

struct EfaBlame {
  Slot slot;
  std::string node;
  std::string evidence;
};

// Which of a job's nodes the network's trouble comes from, or nothing where that can't be told. Pure. Rates older than
// five minutes are history.
//
// - Who is unreachable for at least two others, and for more than half of them, is at fault. Of two nodes neither is.
// - A node that alone has errors of its own kind (work requests that fail locally, receive drops) is at fault.
// - Counters that point at a peer (unresponsive, impaired, time-outs) grow at both ends of a bad path. Where one node
// is
//   bad, every path of its is, and of each other node one path: its sum is as large as those of all others together.
//   Blamed is who has at least half of the whole and twice as much as the next, among three nodes or more.
std::optional<EfaBlame> blame_efa(const std::vector<EfaReport>& reports, Instant now);

}  // namespace pitcrew::control
