#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "agent/probe/exec/exec.hpp"
#include "agent/probe/host.hpp"
#include "agent/probe/instance_types.hpp"
#include "agent/probe/probe.hpp"
#include "agent/probe/runner/runner.hpp"

namespace pitcrew::agent {

// What the probes are told about the machine and by the agent's configuration.
struct ProbeSettings {
  HostPaths paths;
  InstanceType machine;  // what should be there; all 0 where its type is not known
  std::string nvml = "libnvidia-ml.so.1";
  std::vector<exec::Program> programs;  // valid ones
};

// One probe's row: a class, how often it looks, and how long that may take.
struct ProbeRow {
  std::string_view name;
  Duration every;
  Duration limit;
  std::unique_ptr<Probe> (*make)(const ProbeSettings&);
};

// Every probe of the host's file systems and clock. One more probe is one more row.
std::span<const ProbeRow> probe_table();

// All that the runner runs: each row, NVML's probes (gpu.*), and the configured programs.
std::vector<ProbeTask> probe_tasks(const ProbeSettings& settings);

}  // namespace pitcrew::agent
