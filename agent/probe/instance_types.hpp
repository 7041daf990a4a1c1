#pragma once

#include <span>
#include <string_view>

namespace pitcrew::agent {

// What a machine of an instance type has when all of it is there, and what it should reach. 0: not known, nothing is
// compared.
struct InstanceType {
  std::string_view name;
  std::string_view gpu_model;
  unsigned gpus = 0;
  unsigned nvlinks = 0;      // of each GPU
  unsigned efa_devices = 0;  // as many as the type can have: those that its launch template asks for may be fewer
  unsigned nvme_disks = 0;   // instance store
  // GB/s of bus bandwidth that an all-reduce over all GPUs of one node reaches at least, over NVLink alone.
  double nvlink_bus_bandwidth = 0;
  std::string_view source;
};

std::span<const InstanceType> instance_types();
// Null where the table does not have it.
const InstanceType* find_instance_type(std::string_view name);

}  // namespace pitcrew::agent
