#pragma once

#include "agent/judge/history.hpp"

namespace pitcrew::agent {

// Whether the observation is one that the rule counts, `alone` and `onlyGPU` apart. `before`: the reading before, or
// null for events and first readings; tests on growth don't hold then.
bool matches(const api::HealthRule& rule, const Observation& observation, const History::Reading* before);

}  // namespace pitcrew::agent
