#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// The present epoch as its launchers tell it: brings progress, checkpoints and the open recovery's times up to date in
// the new status, and the phase to Running with the first step done.
void follow(Situation& situation);

// The epoch is being ended by a failure that happened at `happened`: its time up to then counts as what it was, the
// rest as stalled.
void close_timeline(Situation& situation, Instant happened);

// Adds the time since the last write to the part of goodput that the stored status stood for.
void account(Situation& situation);

}  // namespace pitcrew::control
