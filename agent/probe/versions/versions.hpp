#pragma once

#include "agent/probe/host.hpp"
#include "agent/probe/probe.hpp"
#include "agent/probe/versions/clashes.hpp"

namespace pitcrew::agent::versions {

// Versions of what EFA and NCCL are made of, where the machine shows them: kernel, EFA's and NVIDIA's drivers, the EFA
// installer, libfabric, aws-ofi-nccl, NCCL and CUDA. A container has libraries of its own, which are not seen from
// here. `versions` of the node names each, and how many known clashes there are; the text names the pairs.
class VersionsProbe final : public Probe {
 public:
  explicit VersionsProbe(HostPaths paths) : paths_(std::move(paths)) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  HostPaths paths_;
};

// What EFA's installer has written down: /opt/amazon/efa_installed_packages.
Versions parse_installed_packages(std::string_view text);
// "libnccl.so.2.27.7" → "2.27.7"; empty where it is another file or has no version in its name.
std::string version_in_name(std::string_view file, std::string_view library);
// The driver's version in /proc/driver/nvidia/version.
std::string parse_nvidia_version(std::string_view text);

}  // namespace pitcrew::agent::versions
