#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/parallel/lanes.hpp"

namespace pitcrew::trainer {

// What a rank tells all others in every step: its lanes' losses, and what it was asked to do. All ranks see the same
// reports, so all decide the same.
struct StepReport {
  bool stop = false;          // SIGTERM, or the page's stop word
  bool save_durable = false;  // by schedule; rank 0's counts
  bool save_memory = false;
  bool confirmed = false;      // its part is what the node of PITCREW_REPLAY computed
  uint64_t save_request = 0;   // the page's save word
  std::vector<double> losses;  // of the rank's lanes: sums over tokens
};

// All reports as one: losses of all lanes in their order, flags of any rank (the schedule's: of rank 0), the highest
// request. Collective. Errors as Comm::all_gather.
Result<StepReport> share(Comm& comm, const LanePlan& plan, const StepReport& mine);

}  // namespace pitcrew::trainer
