#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "agent/probe/instance_types.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::check {

// What a sound device reaches at least; what is not known is not compared. Units as people read them.
struct Expectations {
  std::optional<double> memory_bandwidth;      // GB/s, read and written by a copy
  std::optional<double> tensor_rate;           // TFLOP/s, BF16, dense
  std::optional<double> host_bandwidth;        // GB/s, each way
  std::optional<double> collective_bandwidth;  // GB/s, of the bus, over all GPUs of the node
  std::optional<double> disk_bandwidth;        // GB/s
  unsigned gpus = 0;                           // 0: not known
  unsigned efa_devices = 0;

  // Puts another value in place of one: "host_bandwidth=40".
  Status set(std::string_view assignment);
};

// By the GPU's model and the machine's type; either may be unknown.
Expectations expectations_of(std::string_view gpu_model, const agent::InstanceType* machine);

}  // namespace pitcrew::check
