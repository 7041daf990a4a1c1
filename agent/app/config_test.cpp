#include "agent/app/config.hpp"

#include <gtest/gtest.h>

namespace pitcrew::agent {
namespace {

TEST(AgentConfig, an_empty_file_means_the_defaults) {
  const auto config = parse_config("{}", "agent.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->kernel_log, "syslog");
  EXPECT_EQ(config->metrics_port, 9400u);
  EXPECT_TRUE(config->policy.rules.empty());
}

TEST(AgentConfig, everything_can_be_set) {
  const auto config = parse_config(R"(
daemonSet: pitcrew-agent
host: /host
state: /var/lib/pitcrew
shadow: true
instanceType: p5.48xlarge
kernelLog: kmsg
nvml: /usr/lib/libnvidia-ml.so.1
cordonBudget: {maxNodes: 5, maxFraction: 0.1, window: 10m}
policy:
- name: xid-63
  match: {kind: xid, codes: [63]}
  severity: Warning
  clears: {when: AfterTime, after: 24h}
  message: look at it when there is time
programs:
- {name: fan, command: [/opt/fan, --fast], every: 5m, timeout: 20s}
heartbeat: 10m
policyEvery: 1m
requestsPerSecond: 2
requestBurst: 10
metricsPort: 9500
healthPort: 9500
logLevel: debug
logFormat: plain
)",
                                   "agent.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->shadow);
  EXPECT_EQ(config->cordon_budget.max_nodes, 5u);
  ASSERT_EQ(config->policy.rules.size(), 1u);
  EXPECT_EQ(config->policy.rules[0].name, "xid-63");
  EXPECT_EQ(config->programs.at(0).command.at(1), "--fast");
  EXPECT_EQ(config->log_level, LogLevel::kDebug);
}

TEST(AgentConfig, all_that_is_wrong_is_told_with_its_line) {
  const auto config = parse_config(R"(
kernellog: syslog
cordonBudget: {maxFraction: 2}
metricsPort: 70000
policy:
- name: x
  match: {kind: xid}
  severity: Terrible
programs:
- {name: A, command: [fan]}
heartbeat: 1m
)",
                                   "agent.yaml");
  ASSERT_FALSE(config);
  const std::string& message = config.error().message;
  for (const char* part :
       {"agent.yaml:2: kernellog", "kernelLog", "cordonBudget.maxFraction", "agent.yaml:4: metricsPort",
        "policy[0].severity", "programs[0]", "heartbeat: must be 5m or more"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " in:\n" << message;
  }
}

}  // namespace
}  // namespace pitcrew::agent
