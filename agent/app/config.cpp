#include "agent/app/config.hpp"

#include <set>

#include "lib/base/config_file.hpp"

namespace pitcrew::agent {
namespace {

void check(const AgentConfig& config, Problems& problems) {
  const auto require = [&](bool good, const std::string& path, const std::string& message) {
    if (!good) problems.push_back({path, message});
  };
  for (const auto& [port, path] :
       {std::pair{config.metrics_port, "metricsPort"}, std::pair{config.health_port, "healthPort"}}) {
    require(port <= 65535, path, "must be a port, 1 to 65535, or 0 for any free one");
  }
  const std::string& log = config.kernel_log;
  require(log == "syslog" || log == "kmsg" || log == "none" || log.starts_with("/"), "kernelLog",
          "'" + log + "' must be syslog, kmsg, none, or the path of a file or pipe from the root");
  for (const auto& [folder, path] : {std::pair{&config.host, "host"}, std::pair{&config.state, "state"}}) {
    require(folder->empty() || folder->starts_with("/"), path, "'" + *folder + "' must be a path from the root");
  }
  require(!config.nvml.empty(), "nvml", "must not be empty; leave it out for libnvidia-ml.so.1");
  require(config.heartbeat >= minutes(5), "heartbeat", "must be 5m or more: a healthy node is written seldom");
  require(config.policy_every >= seconds(10), "policyEvery", "must be 10s or more");
  require(config.requests_per_second > 0, "requestsPerSecond", "must be above 0");
  require(config.request_burst >= 1, "requestBurst", "must be 1 or more");
  api::CordonBudget budget;
  budget.spec = config.cordon_budget;
  Problems of_budget;
  api::validate(budget, of_budget);
  for (const Problem& problem : of_budget) {
    const size_t dot = problem.path.find('.');
    problems.push_back({"cordonBudget." + problem.path.substr(dot + 1), problem.message});
  }
  std::set<std::string> names;
  for (size_t i = 0; i < config.programs.size(); ++i) {
    const exec::Program& program = config.programs[i];
    const std::string path = "programs[" + std::to_string(i) + "]";
    if (const Status good = program.validate(); !good) problems.push_back({path, good.error().message});
    require(names.insert(program.name).second, path + ".name", "'" + program.name + "' is there twice");
  }
}

// The rules of `policy` are those of a HealthPolicy's spec, and checked as such.
void read_policy(ObjectReader& reader, api::HealthPolicy& policy, Problems& problems) {
  const Json* rules = reader.raw("policy");
  if (rules == nullptr) return;
  const Json document{{"apiVersion", api::HealthPolicy::type().api_version()},
                      {"kind", "HealthPolicy"},
                      {"metadata", {{"name", "configuration"}}},
                      {"spec", {{"rules", *rules}}}};
  Problems found;
  policy = api::decode_health_policy(document, found);
  api::validate(policy, found);
  for (Problem& problem : found) {
    const std::string_view kRules = "spec.rules";
    const bool inside = problem.path.starts_with(kRules);
    problems.push_back({inside ? "policy" + problem.path.substr(kRules.size()) : "policy", problem.message});
  }
}

}  // namespace

Result<AgentConfig> parse_config(const std::string& text, const std::string& file) {
  AgentConfig config;
  PITCREW_TRY(read_config(text, file, [&config](ObjectReader& reader, Problems& problems) {
    reader.read("daemonSet", config.daemon_set);
    reader.read("host", config.host);
    reader.read("state", config.state);
    reader.read("shadow", config.shadow);
    reader.read("instanceType", config.instance_type);
    reader.read("kernelLog", config.kernel_log);
    reader.read("nvml", config.nvml);
    if (auto budget = reader.object("cordonBudget")) {
      budget->read("maxNodes", config.cordon_budget.max_nodes);
      budget->read("maxFraction", config.cordon_budget.max_fraction);
      budget->read("window", config.cordon_budget.window);
      budget->finish();
    }
    read_policy(reader, config.policy, problems);
    reader.each("programs", [&](const Json& json, const std::string& path) {
      ObjectReader one(json, path, problems);
      exec::Program& program = config.programs.emplace_back();
      one.read("name", program.name);
      one.read("command", program.command);
      one.read("every", program.every);
      one.read("timeout", program.timeout);
      one.finish();
    });
    reader.read("heartbeat", config.heartbeat);
    reader.read("policyEvery", config.policy_every);
    reader.read("requestsPerSecond", config.requests_per_second);
    reader.read("requestBurst", config.request_burst);
    reader.read("metricsPort", config.metrics_port);
    reader.read("healthPort", config.health_port);
    read_log_keys(reader, config.log_level, config.log_format);
    check(config, problems);
  }));
  return config;
}

Status validate(const AgentConfig& config) {
  Problems problems;
  check(config, problems);
  if (problems.empty()) return {};
  return Error(Code::kInvalidArgument, "configuration: " + join(problems));
}

}  // namespace pitcrew::agent
