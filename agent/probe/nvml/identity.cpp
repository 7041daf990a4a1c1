#include "agent/probe/nvml/identity.hpp"

#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::nvml {

Result<std::vector<Observation>> look_at_identities(const Library& library, Instant now) {
  PITCREW_ASSIGN(const std::vector<Gpu> gpus, list_gpus(library));
  const std::string driver = driver_version(library).value_or("");
  std::vector<Observation> out;
  for (const Gpu& gpu : gpus) {
    if (gpu.uuid.empty()) continue;
    Observation identity = make_reading("gpu.identity", gpu.uuid, now);
    identity.values = {{"index", static_cast<double>(gpu.index)},
                       {"serial", gpu.serial},
                       {"pci", gpu.pci},
                       {"model", gpu.name},
                       {"driver", driver}};
    out.push_back(std::move(identity));
  }
  return out;
}

}  // namespace pitcrew::agent::nvml
