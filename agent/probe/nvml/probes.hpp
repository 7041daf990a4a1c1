#pragma once

#include <span>

#include "agent/probe/nvml/library.hpp"
#include "agent/probe/observation.hpp"

namespace pitcrew::agent::nvml {

// What the node should have, from the table of instance types; 0: not known, and nothing is compared.
struct Expected {
  unsigned gpus = 0;
  unsigned nvlinks = 0;  // of each GPU
};

// One probe's row. `read` fills the observation's values for one GPU: kUnsupported where the GPU does not have it,
// which gives no observation; kGone where the GPU is lost, which the probe gpu.lost reports; other errors are the
// probe's own.
struct GpuProbe {
  std::string_view kind;
  Duration every;
  Duration limit;
  Status (*read)(const Library&, const Gpu&, const Expected&, Observation&);
};

// gpu.ecc gpu.rows gpu.pages gpu.nvlink gpu.pcie gpu.temperature gpu.throttle gpu.power gpu.clocks gpu.memory gpu.use
// gpu.processes gpu.fabric gpu.modes
std::span<const GpuProbe> gpu_probes();

// One look of a probe at all GPUs.
Result<std::vector<Observation>> look(const GpuProbe& probe, const Library& library, const Expected& expected,
                                      Instant now);

// gpu.count of the node, and gpu.lost of each GPU.
Result<std::vector<Observation>> look_at_gpus(const Library& library, const Expected& expected, Instant now);

}  // namespace pitcrew::agent::nvml
