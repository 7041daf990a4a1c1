#include "tests/simulation/agent.hpp"

#include "lib/api/health_names.hpp"
#include "lib/api/node_health.hpp"

namespace pitcrew::simulation {

using api::NodeHealth;

std::optional<Json> SimAgent::get(const ResourceType& type, const std::string& name) {
  const auto answer = api_.handle({.verb = kube::Verb::kGet, .type = type, .key = {"", name}});
  if (answer.status >= 300) return std::nullopt;
  const auto json = answer.body.json();
  if (!json) return std::nullopt;
  return **json;
}

void SimAgent::patch(const ResourceType& type, const std::string& name, Json body) {
  (void)api_.handle({.verb = kube::Verb::kPatch,
                     .type = type,
                     .key = {"", name},
                     .subresource = "",
                     .patch = kube::PatchKind::kMerge,
                     .query = {},
                     .body = kube::Payload::of(std::move(body))});
}

void SimAgent::set_taint(const std::string& node, bool ours) {
  const auto json = get(kube::Node::type(), node);
  if (!json) return;
  Json taints = Json::array();
  for (const Json& taint : json->value("spec", Json::object()).value("taints", Json::array())) {
    if (taint.value("key", "") != api::health::kUnhealthy) taints.push_back(taint);
  }
  if (ours) taints.push_back({{"key", api::health::kUnhealthy}, {"effect", "NoSchedule"}});
  patch(kube::Node::type(), node, {{"spec", {{"taints", taints}, {"unschedulable", ours ? Json(true) : Json()}}}});
}

void SimAgent::quarantine(const std::string& node, const std::string& rule) {
  patch(kube::Node::type(), node, {{"metadata", {{"labels", {{api::health::kUnhealthy, rule}}}}}});
  set_taint(node, true);
}

void SimAgent::release(const std::string& node) {
  patch(kube::Node::type(), node, {{"metadata", {{"labels", {{api::health::kUnhealthy, nullptr}}}}}});
  set_taint(node, false);
}

void SimAgent::verdict(const std::string& node, const std::string& rule, api::HealthAction action, bool certain) {
  api::HealthVerdict verdict;
  verdict.rule = rule;
  verdict.device = "GPU-1";
  verdict.severity =
      action == api::HealthAction::kRestart ? api::HealthSeverity::kWarning : api::HealthSeverity::kFault;
  verdict.certain = certain;
  verdict.action = action;
  verdict.message = "simulated";
  verdict.since = verdict.last = now_;
  write(node, {verdict});
}

void SimAgent::no_verdict(const std::string& node) { write(node, {}); }

void SimAgent::write(const std::string& node, std::vector<api::HealthVerdict> verdicts) {
  const auto json = get(kube::Node::type(), node);
  if (!json) return;
  NodeHealth health;
  health.spec.node_name = node;
  health.spec.node_uid = json->at("metadata").at("uid").get<std::string>();
  health.spec.provider_id = json->value("spec", Json::object()).value("providerID", "");
  health.metadata.name = api::node_health_name(health.spec);
  health.status.healthy = verdicts.empty();
  health.status.verdicts = std::move(verdicts);
  if (!get(NodeHealth::type(), health.metadata.name)) {
    (void)api_.handle({.verb = kube::Verb::kCreate,
                       .type = NodeHealth::type(),
                       .key = {"", health.metadata.name},
                       .body = kube::Payload::of(health.encode())});
    return;
  }
  Json status = health.encode().value("status", Json::object());
  if (health.status.verdicts.empty()) status["verdicts"] = nullptr;
  patch(NodeHealth::type(), health.metadata.name, {{"spec", health.encode()["spec"]}, {"status", status}});
}

}  // namespace pitcrew::simulation
