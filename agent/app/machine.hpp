#pragma once

#include <string>

#include "agent/probe/host.hpp"
#include "agent/probe/instance_types.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::agent {

// What tells one boot of a machine from another.
struct Boot {
  std::string id;  // /proc/sys/kernel/random/boot_id
  Instant time;    // to the second; it moves when the machine's clock is set
};
Result<Boot> read_boot(const HostPaths& paths);

// The instance's type as its firmware tells it (DMI product name: "p5.48xlarge" on EC2); empty where it can't be read.
std::string read_instance_type(const HostPaths& paths);
// From the table; of an unknown name all is 0, so nothing is compared.
InstanceType machine_of(const std::string& instance_type);

}  // namespace pitcrew::agent
