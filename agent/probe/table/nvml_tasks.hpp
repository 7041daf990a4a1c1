#pragma once

#include <vector>

#include "agent/probe/table/table.hpp"

namespace pitcrew::agent {

// NVML's probes as tasks that share one connection: gpu.count and gpu.lost (with driver.start after the driver was
// replaced), XIDs as events, activity, and a task for each row of nvml::gpu_probes().
std::vector<ProbeTask> nvml_tasks(const ProbeSettings& settings);

}  // namespace pitcrew::agent
