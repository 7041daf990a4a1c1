#pragma once

#include <vector>

#include "lib/api/training_job.hpp"

namespace pitcrew::control {

// The recoveries that are to be counted between two statuses of a job, each once: those that are over. One of unknown
// cause whose step is being computed again on another node waits for what that says, since a counter can't be taken
// back.
std::vector<api::Recovery> recovered_since(const api::TrainingJobStatus& before, const api::TrainingJobStatus& after);

}  // namespace pitcrew::control
