#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "agent/app/config.hpp"
#include "agent/probe/host.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::agent {
namespace {

// The object of a kind and name that the chart rendered from tests/chart/values/<file>.yaml.
Json rendered(const std::string& file, const std::string& kind, const std::string& name) {
  std::ifstream in(std::string(PITCREW_SOURCE_DIR) + "/tests/chart/golden/" + file + ".yaml");
  std::stringstream text;
  text << in.rdbuf();
  const auto documents = parse_yaml(text.str());
  EXPECT_TRUE(documents.ok()) << (documents.ok() ? "" : documents.error().message);
  for (const YamlDocument& document : *documents) {
    const Json& object = document.json;
    if (object.is_object() && object.value("kind", "") == kind && object.at("metadata").at("name") == name)
      return object;
  }
  ADD_FAILURE() << file << " has no " << kind << " " << name;
  return Json::object();
}

Result<AgentConfig> config_of(const std::string& file) {
  const Json map = rendered(file, "ConfigMap", "pitcrew-agent");
  return parse_config(map.at("data").at("agent.yaml").get<std::string>(), file);
}

TEST(AgentChart, the_agent_reads_its_configuration_and_its_defaults_are_the_programs) {
  for (const char* file : {"default", "agent_only"}) {
    const auto config = config_of(file);
    ASSERT_TRUE(config.ok()) << config.error().message;
    const AgentConfig wanted;
    EXPECT_EQ(config->daemon_set, rendered(file, "DaemonSet", "pitcrew-agent").at("metadata").at("name"));
    EXPECT_EQ(config->host, "/host");
    EXPECT_EQ(config->state, wanted.state);
    EXPECT_EQ(config->shadow, wanted.shadow);
    EXPECT_EQ(config->cordon_budget, wanted.cordon_budget);
    EXPECT_EQ(config->metrics_port, wanted.metrics_port);
    EXPECT_EQ(config->health_port, wanted.health_port);
    EXPECT_TRUE(config->policy.rules.empty());
  }
}

TEST(AgentChart, everything_that_can_be_set_arrives) {
  const auto config = config_of("everything");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_TRUE(config->shadow);
  EXPECT_EQ(config->cordon_budget, (api::CordonBudgetSpec{1, 0.5, minutes(10)}));
  EXPECT_EQ(config->metrics_port, 10400u);
  EXPECT_EQ(config->health_port, 10401u);
  ASSERT_EQ(config->policy.rules.size(), 1u);
  EXPECT_EQ(config->policy.rules[0].name, "xid-94");
  EXPECT_EQ(config->instance_type, "p5.48xlarge");
  EXPECT_EQ(config->kernel_log, "kmsg");
  EXPECT_EQ(config->nvml, "/opt/nvidia/libnvidia-ml.so.1");
  ASSERT_EQ(config->programs.size(), 1u);
  EXPECT_EQ(config->programs[0].name, "fabric");
  EXPECT_EQ(config->heartbeat, minutes(10));
  EXPECT_EQ(config->policy_every, minutes(1));
  EXPECT_EQ(config->requests_per_second, 2);
  EXPECT_EQ(config->request_burst, 10);
  EXPECT_EQ(config->log_level, LogLevel::kWarning);
  EXPECT_EQ(config->log_format, LogFormat::kPlain);
}

TEST(AgentChart, the_pod_has_one_capability_and_writes_into_its_state_alone) {
  const Json pod = rendered("default", "DaemonSet", "pitcrew-agent").at("spec").at("template").at("spec");
  EXPECT_EQ(pod.at("tolerations"), Json::array({{{"operator", "Exists"}}}));
  const Json& agent = pod.at("containers").at(0);
  const Json& security = agent.at("securityContext");
  EXPECT_EQ(security.at("capabilities"), (Json{{"drop", {"ALL"}}, {"add", {"SYSLOG"}}}));
  EXPECT_EQ(security.at("readOnlyRootFilesystem"), true);
  EXPECT_EQ(security.at("allowPrivilegeEscalation"), false);
  EXPECT_FALSE(security.contains("privileged"));
  for (const Json& mount : agent.at("volumeMounts")) {
    EXPECT_TRUE(mount.at("name") == "state" || mount.value("readOnly", false)) << mount.dump();
  }
}

// What GpuUsers reads: the driver's process numbers, their control groups, the names of containers' logs.
TEST(AgentChart, whose_gpu_it_is_can_be_seen_unless_that_is_switched_off) {
  const auto paths_of = [](const Json& pod) {
    std::map<std::string, std::string> paths;
    for (const Json& mount : pod.at("containers").at(0).at("volumeMounts")) {
      for (const Json& volume : pod.at("volumes")) {
        if (volume.at("name") == mount.at("name") && volume.contains("hostPath"))
          paths[mount.at("mountPath")] = volume.at("hostPath").at("path");
      }
    }
    return paths;
  };
  const auto pod_of = [](const char* file, const char* name) {
    return rendered(file, "DaemonSet", name).at("spec").at("template").at("spec");
  };
  const Json pod = pod_of("default", "pitcrew-agent");
  const auto paths = paths_of(pod);
  const HostPaths wanted = HostPaths::under(config_of("default")->host);
  EXPECT_EQ(pod.value("hostPID", false), true);
  EXPECT_EQ(paths.at(wanted.proc), "/proc");
  EXPECT_EQ(paths.at(wanted.root + "/var/log/containers"), "/var/log/containers");
  const Json without = pod_of("everything", "pitcrew-agent");
  EXPECT_FALSE(without.value("hostPID", false));
  for (const auto& [inside, outside] : paths_of(without)) EXPECT_FALSE(outside.starts_with("/var/log")) << inside;
}

}  // namespace
}  // namespace pitcrew::agent
