#pragma once

#include <vector>

#include "agent/probe/nvml/library.hpp"
#include "agent/probe/observation.hpp"

namespace pitcrew::agent::nvml {

// `gpu.identity` of each GPU that has a UUID: index, serial, pci, model, driver. What the kernel's log calls by PCI
// address is one of these.
Result<std::vector<Observation>> look_at_identities(const Library& library, Instant now);

}  // namespace pitcrew::agent::nvml
