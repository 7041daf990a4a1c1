#pragma once

#include <ostream>

#include "agent/app/config.hpp"
#include "lib/base/clock.hpp"

namespace pitcrew::agent {

// Looks at this machine twice, a second apart, reads the kernel log as far as it goes back, and prints what was seen
// and what the policy makes of it: GPUs, network devices, disks, findings, and probes that could not look. Needs no
// cluster and changes nothing. Blocks for seconds. 0: no fault; 1: a fault; the caller's exit code.
int look_once(const AgentConfig& config, const Clock& clock, std::ostream& out);

}  // namespace pitcrew::agent
