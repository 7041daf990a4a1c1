#pragma once

#include "operator/decide/plan.hpp"
#include "operator/decide/snapshot.hpp"

namespace pitcrew::control {

// What to do about one job now. Pure: the same snapshot and time give the same plan; nothing is remembered between
// calls but what is in the job's status. Called whenever anything that the snapshot shows has changed, and at
// Plan::wake.
Plan decide(const Snapshot& snapshot, Instant now);

// How long a channel must have been silent before a node may be judged lost, and how long a fresh leader waits for
// launchers to say hello before it judges them by their absence.
inline constexpr Duration kSilence = seconds(5);
inline constexpr Duration kSilenceAfterClose = seconds(10);
inline constexpr Duration kHelloGrace = seconds(15);

}  // namespace pitcrew::control
