#pragma once

#include "operator/decide/evidence.hpp"

namespace pitcrew::control {

// A step whose loss or gradient can't be right, and that gave the same bits twice on one node, is computed on another
// node before anybody is blamed: the same bits there mean program or data (the trainer ends with 65), other bits mean
// that the first node is suspect. What is known of it stands in status.epoch.replay and goes with every epoch's table
// until the step is past.

// Whether `verdict` can be looked into on another node now: a spare that is up, or a node that a pod fits on.
bool can_replay_elsewhere(const Situation& situation, const Verdict& verdict);

// Remembers the step, and says in the newest recovery and in an event what is done about it. Where the step was under
// suspicion before and another node has just given other bits, the first node is suspect already.
void begin_replay(Situation& situation, const Verdict& verdict);

// The step is past in this epoch: other bits than the first node's make that node avoided. Called while ranks run.
void settle_replay(Situation& situation);

// The node that the slot of the suspected rank must not go to; empty for other slots.
std::string replay_avoids(const Situation& situation, Slot slot);

// For the next epoch: nothing where the step is past, or where the rank's part of the batch is another one.
std::optional<api::ReplayStatus> carried_replay(const Situation& situation);

// For the epoch's message.
std::optional<ReplayPoint> replay_point(const Situation& situation);

}  // namespace pitcrew::control
