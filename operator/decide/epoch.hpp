#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Commits the next epoch into the new status: number and term above everything that was ever seen, the table of the
// gang as it is connected now, a fresh port, and the resume point proposed. Every slot must be connected.
void commit_epoch(Situation& situation);

// The port of an epoch: another one for each of many epochs in a row, and rarely the same for two jobs.
uint32_t epoch_port(const std::string& job_uid, EpochNumber number, uint32_t first, uint32_t last);

// The message that tells the stored epoch, but for the receiver's slot and the key, which are left empty.
api::channel::Epoch epoch_message(const Situation& situation);

}  // namespace pitcrew::control
