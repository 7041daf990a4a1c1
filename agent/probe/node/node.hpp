#pragma once

#include <optional>
#include <string_view>

#include "agent/probe/host.hpp"
#include "agent/probe/probe.hpp"

namespace pitcrew::agent::node {

// What runs out on a node beside GPUs: `node.memory` (with the kernel's count of processes it has killed), `node.pids`,
// `node.files`, and `node.pressure` (how long programs waited for processor, memory and disk). All of procfs; what this
// kernel does not have is left out.
class PressureProbe final : public Probe {
 public:
  explicit PressureProbe(HostPaths paths) : paths_(std::move(paths)) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  HostPaths paths_;
};

// "MemAvailable:  123 kB" of meminfo or "oom_kill 3" of vmstat: the number behind a name.
std::optional<double> named_number(std::string_view text, std::string_view name);
// The share of time, in percent of the last minute, in which some or all programs waited: "full avg10=… avg60=1.5 …".
std::optional<double> waited_percent(std::string_view pressure, std::string_view who);
// Threads that there are: "0.2 0.1 0.1 2/1350 4711" of loadavg.
std::optional<double> threads_of_loadavg(std::string_view text);

}  // namespace pitcrew::agent::node
