#pragma once

#include <string>
#include <vector>

#include "agent/probe/exec/exec.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/health_policy.hpp"
#include "lib/base/log.hpp"

namespace pitcrew::agent {

// What an agent can be told: the configuration file's keys, with their defaults. docs/agent.md describes them.
struct AgentConfig {
  std::string daemon_set;                  // its own, in its own namespace; empty: the number of agents is not known
  std::string host;                        // where the machine's /proc, /sys and / are; empty: where they usually are
  std::string state = "/var/lib/pitcrew";  // a folder that outlives the pod; empty: nothing is kept
  bool shadow = false;
  std::string instance_type;          // empty: from DMI, or the node's label
  std::string kernel_log = "syslog";  // syslog, kmsg, none, or the path of a file or pipe
  std::string nvml = "libnvidia-ml.so.1";
  api::CordonBudgetSpec cordon_budget;  // made where there is none
  api::HealthPolicy policy;             // over the built-in one
  std::vector<exec::Program> programs;
  Duration heartbeat = minutes(5);
  Duration policy_every = minutes(5);
  double requests_per_second = 5;
  double request_burst = 20;
  uint32_t metrics_port = 9400;
  uint32_t health_port = 9401;  // may be the same; 0: any free one
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kJson;
};

// Reads a configuration file's text. All that is wrong with it is one error, each problem with its line, its path and
// a remedy; unknown keys are problems. `file` is for messages.
Result<AgentConfig> parse_config(const std::string& text, const std::string& file);
// What can't be right, whatever way it came.
Status validate(const AgentConfig& config);

}  // namespace pitcrew::agent
