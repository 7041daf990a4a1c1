#pragma once

#include <map>
#include <memory>

#include "agent/probe/nvml/library.hpp"
#include "agent/probe/observation.hpp"

namespace pitcrew::agent::nvml {

// How busy each GPU was between two looks, by the GPU's own performance monitors (GPM, Hopper and later):
// `gpu.activity` with the ratios sm, occupancy, tensor, graphics and dram, and the bytes a second nvlink_rx, nvlink_tx,
// pcie_rx and pcie_tx. A GPU without GPM, and a GPU's first look, give nothing. Owned by its task, one thread; frees
// its samples.
class Activity {
 public:
  Activity() = default;
  ~Activity();
  Activity(const Activity&) = delete;
  Activity& operator=(const Activity&) = delete;

  Result<std::vector<Observation>> look(const std::shared_ptr<const Library>& library, Instant now);

 private:
  struct Samples {
    void* before = nullptr;
    void* after = nullptr;
    bool taken = false;  // `before` holds one
  };
  void free_all();

  std::shared_ptr<const Library> library_;  // which the samples are of
  std::map<std::string, Samples> samples_;  // by UUID
};

}  // namespace pitcrew::agent::nvml
