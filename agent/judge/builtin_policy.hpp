#pragma once

#include <string_view>

#include "lib/api/health_policy.hpp"

namespace pitcrew::agent {

// The policy that judges where the cluster says nothing else: builtin_policy.yaml of this folder, compiled in.
const api::HealthPolicy& builtin_policy();
std::string_view builtin_policy_text();

}  // namespace pitcrew::agent
