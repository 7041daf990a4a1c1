#pragma once

#include <string>
#include <vector>

#include "operator/decide/plan.hpp"

namespace pitcrew::control {

// A plan in words, one line a thing: what a scenario file shows below its commands.
std::vector<std::string> trace_of(const api::TrainingJob& job, const Plan& plan);

}  // namespace pitcrew::control
