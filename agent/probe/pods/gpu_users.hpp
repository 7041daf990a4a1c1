#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/probe/host.hpp"
#include "agent/probe/observation.hpp"

namespace pitcrew::agent {

// Who computes on a GPU. All empty: nobody, or nobody's pod.
struct GpuUser {
  std::string ns;
  std::string pod;
  std::string container;
  std::string job;  // the TrainingJob's name; of another pod its name without the number at its end
  bool operator==(const GpuUser&) const = default;
};

// The container's id in what /proc/<pid>/cgroup says, of either version of control groups and of either driver
// (cgroupfs, systemd); nothing where the process is in no pod.
std::optional<std::string> container_of_cgroup(std::string_view text);

// "llama-7_team-a_train-<id>.log", as the kubelet names its links to containers' logs → the container's id and its
// place.
std::optional<std::pair<std::string, GpuUser>> container_of_log(std::string_view name);

// Finds out whose processes are on which GPU: NVML lists them, their control groups name the container, and the names
// of the kubelet's links in /var/log/containers say which pod that is. What is known stays known, so that nothing is
// read while nothing changes. One thread.
class GpuUsers {
 public:
  explicit GpuUsers(HostPaths paths) : paths_(std::move(paths)) {}

  // A reading `gpu.processes`, others are passed over. True where the GPU has another user now.
  bool take(const Observation& reading);
  // By the GPU's UUID.
  const std::map<std::string, GpuUser>& users() const { return users_; }

 private:
  GpuUser find(std::string_view pids);
  void read_logs();

  HostPaths paths_;
  std::map<std::string, std::string> pids_;    // as last read, by GPU
  std::map<std::string, GpuUser> containers_;  // by id
  std::map<std::string, GpuUser> users_;
};

}  // namespace pitcrew::agent
