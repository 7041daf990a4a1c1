#include "agent/probe/instance_types.hpp"

#include <algorithm>

namespace pitcrew::agent {
namespace {

// GPUs and EFA devices: Karpenter's instance reference, HyperPod's resource table, awsome-distributed-training's
// instance profiles. Disks: EC2's specifications of accelerated computing instances (instance store). NVLinks: DCGM's
// gpu_nvlinks_expected_up as AWS sets it (12 on A100, 18 from H100 on). Bandwidth over NVLink: the same profiles'
// minimum.
constexpr std::string_view kTables =
    "Karpenter instance reference; HyperPod INSTANCE_RESOURCES; awsome-distributed-training instance profiles; EC2 "
    "instance store specifications";
constexpr InstanceType kTypes[] = {
    {"p4d.24xlarge", "A100", 8, 12, 4, 8, 200, kTables},
    {"p4de.24xlarge", "A100", 8, 12, 4, 8, 200, kTables},
    {"p5.48xlarge", "H100", 8, 18, 32, 8, 500, kTables},
    {"p5.4xlarge", "H100", 1, 0, 1, 1, 0, kTables},
    {"p5e.48xlarge", "H200", 8, 18, 32, 8, 500, kTables},
    {"p5en.48xlarge", "H200", 8, 18, 16, 8, 500, kTables},
    {"p6-b200.48xlarge", "B200", 8, 18, 8, 8, 600, kTables},
    // No published minimum of its bandwidth: not compared.
    {"p6-b300.48xlarge", "B300", 8, 18, 16, 8, 0, kTables},
    // Sources contradict one another on its EFA devices, and its NVLinks leave the node: neither is compared.
    {"p6e-gb200.36xlarge", "GB200", 4, 0, 0, 0, 0, kTables},
    {"g6e.48xlarge", "L40S", 8, 0, 4, 4, 0, kTables},
};

}  // namespace

std::span<const InstanceType> instance_types() { return kTypes; }

const InstanceType* find_instance_type(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const InstanceType& type) { return type.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

}  // namespace pitcrew::agent
