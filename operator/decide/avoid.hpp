#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Brings status.avoided_nodes up to date with status.failures: nodes that failed recovery.avoidNodes.afterFailures
// times for the same cause within recovery.limit.window, the ones with the newest failures first, at most
// recovery.avoidNodes.limit. A node at fault by its own word (GpuFault, EfaFault) counts at once. Planned and Program
// are no node's fault.
void update_avoided(Situation& situation);

}  // namespace pitcrew::control
