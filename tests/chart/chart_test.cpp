#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "lib/base/yaml.hpp"
#include "operator/app/config.hpp"

namespace pitcrew::control {
using namespace nlohmann::literals;

namespace {

// The objects that the chart rendered from tests/chart/values/<name>.yaml; render.sh holds the files against the chart.
std::vector<Json> rendered(const std::string& name) {
  std::ifstream in(std::string(PITCREW_SOURCE_DIR) + "/tests/chart/golden/" + name + ".yaml");
  std::stringstream text;
  text << in.rdbuf();
  const auto documents = parse_yaml(text.str());
  EXPECT_TRUE(documents.ok()) << (documents.ok() ? "" : documents.error().message);
  std::vector<Json> objects;
  if (documents) {
    for (const YamlDocument& document : *documents) objects.push_back(document.json);
  }
  return objects;
}

// The one of its kind, the agent's apart.
Json only(const std::string& name, const std::string& kind) {
  for (const Json& object : rendered(name)) {
    if (!object.is_object() || object.value("kind", "") != kind) continue;
    if (!object.at("metadata").at("name").get<std::string>().ends_with("-agent")) return object;
  }
  ADD_FAILURE() << name << " has no " << kind;
  return Json::object();
}

Result<OperatorConfig> config_of(const std::string& name) {
  return parse_config(only(name, "ConfigMap").at("data").at("operator.yaml").get<std::string>(), name);
}

int port_of(const Json& deployment, const std::string& name) {
  for (const Json& port : deployment.at("/spec/template/spec/containers/0/ports"_json_pointer)) {
    if (port.at("name") == name) return port.at("containerPort");
  }
  return 0;
}

TEST(Chart, the_operator_reads_its_configuration_and_its_defaults_are_the_programs) {
  const auto config = config_of("default");
  ASSERT_TRUE(config.ok()) << config.error().message;
  OperatorConfig wanted;
  EXPECT_EQ(config->launcher_image, "registry.example.com/pitcrew/launcher:0.1.0");
  EXPECT_EQ(config->watch_namespace, wanted.watch_namespace);
  EXPECT_EQ(config->lease_name, wanted.lease_name);
  EXPECT_EQ(config->channel_port, wanted.channel_port);
  EXPECT_EQ(config->metrics_port, wanted.metrics_port);
  EXPECT_EQ(config->health_port, wanted.health_port);
  EXPECT_EQ(config->repair, wanted.repair);
  EXPECT_EQ(config->check_image, "registry.example.com/pitcrew/check:0.1.0");
  EXPECT_EQ(config->check_deadline, wanted.check_deadline);
  EXPECT_EQ(config->check_after_faults, wanted.check_after_faults);
  EXPECT_EQ(config->log_level, wanted.log_level);
  EXPECT_EQ(config->log_format, wanted.log_format);
}

TEST(Chart, every_key_of_the_configuration_that_it_can_set_is_one_that_the_operator_knows) {
  const auto config = config_of("everything");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->launcher_image,
            "registry.example.com/pitcrew/la@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
  EXPECT_EQ(config->watch_namespace, "team-a");
  EXPECT_EQ(config->lease_duration, seconds(15));
  EXPECT_EQ(config->channel_ca.overlap, hours(48));
  EXPECT_EQ(config->log_level, LogLevel::kDebug);
  EXPECT_EQ(config->workers, 4u);
  EXPECT_FALSE(config->check_after_faults);
  EXPECT_EQ(config->progress_writes_per_second, 5);
  EXPECT_EQ(config->advertise_address, "10.0.0.7");
  EXPECT_EQ(config->repair, RepairMode::kWebhook);
}

TEST(Chart, ports_names_and_namespaces_are_the_same_everywhere) {
  for (const char* name : {"default", "everything"}) {
    const auto config = config_of(name);
    ASSERT_TRUE(config.ok()) << config.error().message;
    const Json deployment = only(name, "Deployment");
    EXPECT_EQ(port_of(deployment, "channel"), static_cast<int>(config->channel_port));
    EXPECT_EQ(port_of(deployment, "metrics"), static_cast<int>(config->metrics_port));
    EXPECT_EQ(port_of(deployment, "health"), static_cast<int>(config->health_port));
    const Json service = only(name, "Service");
    EXPECT_EQ(service.at("/metadata/name"_json_pointer), config->channel_service);
    EXPECT_EQ(service.at("/spec/ports/0/port"_json_pointer), config->channel_port);
    EXPECT_FALSE(service.at("spec").contains("selector"));
    EXPECT_EQ(deployment.at("/spec/template/spec/serviceAccountName"_json_pointer),
              only(name, "ServiceAccount").at("/metadata/name"_json_pointer));
    // The operator may read the Secrets, the Lease and the EndpointSlices that it is configured to.
    std::string names;
    for (const Json& object : rendered(name)) {
      if (!object.is_object() || object.value("kind", "") != "Role") continue;
      for (const Json& rule : object.at("rules")) names += rule.value("resourceNames", Json::array()).dump();
    }
    for (const std::string& wanted : {config->channel_secret, config->epoch_secret, config->lease_name,
                                      config->channel_service + "-ipv4", config->channel_service + "-ipv6"}) {
      EXPECT_NE(names.find('"' + wanted + '"'), std::string::npos) << wanted << " in " << names;
    }
  }
}

}  // namespace
}  // namespace pitcrew::control
