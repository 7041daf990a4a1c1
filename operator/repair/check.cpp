#include "operator/repair/check.hpp"

#include <algorithm>

#include "lib/api/check_report.hpp"
#include "lib/api/health_names.hpp"
#include "lib/kube/types/fields.hpp"

namespace pitcrew::control {
namespace {

using kube::fields::find;

constexpr char kScratch[] = "/scratch";

std::optional<std::string> requested(const api::NodeHealth& health) {
  const auto found = health.metadata.annotations.find(kRequestCheck);
  if (found == health.metadata.annotations.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

bool answered(const api::NodeHealth& health, const std::string& id) {
  const auto& checks = health.status.checks;
  return std::any_of(checks.begin(), checks.end(), [&](const api::CheckResult& check) { return check.id == id; });
}

// The newest fault, where a check is due since then.
std::optional<Instant> due_after_fault(const NodeCare& care, const CheckSettings& settings) {
  if (!settings.after_faults || settings.image.empty() || !care.node || !care.health->status.healthy) return {};
  const kube::Node& node = *care.node;
  const auto gpus = node.allocatable.find("nvidia.com/gpu");
  const bool has_gpus = gpus != node.allocatable.end() && gpus->second >= 1000;
  const bool away = node.unschedulable || node.metadata.annotations.contains(api::health::kHold) ||
                    std::any_of(node.taints.begin(), node.taints.end(),
                                [](const kube::Taint& taint) { return taint.key == api::health::kUnhealthy; });
  if (!has_gpus || away) return {};
  return api::unchecked_fault(care.health->status);
}

Json tolerations() {
  Json list = Json::array();
  for (const char* key : {api::health::kUnhealthy, "node.kubernetes.io/unschedulable", "nvidia.com/gpu"}) {
    list.push_back({{"key", key}, {"operator", "Exists"}, {"effect", "NoSchedule"}});
  }
  return list;
}

api::CheckResult no_report(const std::string& id, std::string why, Instant now) {
  return {id, "run", api::CheckOutcome::kUnknown, std::move(why), now};
}

}  // namespace

std::string check_pod_name(const api::NodeHealth& health) {
  std::string name = "check-" + health.metadata.name;
  name.resize(std::min<size_t>(name.size(), 63));
  std::replace(name.begin(), name.end(), '.', '-');
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name;
}

CheckPlan plan_check(const NodeCare& care, const CheckPod& pod, const CheckSettings& settings) {
  CheckPlan plan;
  const auto step = [&plan](CheckStep step, std::string why = "") {
    plan.step = step;
    plan.why = std::move(why);
    return plan;
  };
  if (const auto id = requested(*care.health); id && !answered(*care.health, *id)) {
    plan.id = *id;
    plan.requested = true;
  } else if (const auto fault = due_after_fault(care, settings)) {
    plan.id = "after-fault-" + to_rfc3339(*fault, 3);
    plan.since = *fault;
  }
  if (plan.id.empty() || answered(*care.health, plan.id))
    return {pod.there ? CheckStep::kRemove : CheckStep::kNothing, "", "", false, {}};
  if (pod.there) return step(pod.ended || pod.stuck ? CheckStep::kCollect : CheckStep::kWait, "the check runs");
  if (settings.image.empty()) return step(CheckStep::kRefuse, "the operator's configuration names no checkImage");
  if (!care.node) return step(CheckStep::kRefuse, "its node is gone");
  if (!care.node->ready()) return step(CheckStep::kWait, "the node is not ready");
  if (care.used) return step(CheckStep::kWait, "pods with GPUs or of a job are on the node");
  return step(CheckStep::kCreate);
}

Json check_pod(const NodeCare& care, const std::string& id, const CheckSettings& settings) {
  Json limits = Json::object();
  for (const char* resource : {"nvidia.com/gpu", "vpc.amazonaws.com/efa"}) {
    const auto found = care.node->allocatable.find(resource);
    if (found != care.node->allocatable.end() && found->second >= 1000) {
      limits[resource] = std::to_string(found->second / 1000);
    }
  }
  const bool gpus = limits.contains("nvidia.com/gpu");
  Json arguments = Json::array({"--id", id, "--termination-log", "/dev/termination-log", "--disk", kScratch});
  const auto type = care.node->metadata.labels.find("node.kubernetes.io/instance-type");
  if (type != care.node->metadata.labels.end()) {
    arguments.push_back("--instance");
    arguments.push_back(type->second);
  }
  if (!gpus) {
    arguments.push_back("--backend");
    arguments.push_back("none");
  }
  Json container{
      {"name", "check"},
      {"image", settings.image},
      {"args", std::move(arguments)},
      {"env", Json::array({{{"name", "NODE_NAME"}, {"valueFrom", {{"fieldRef", {{"fieldPath", "spec.nodeName"}}}}}},
                           // What NVIDIA's container runtime brings beside the devices.
                           {{"name", "NVIDIA_DRIVER_CAPABILITIES"}, {"value", "compute,utility"}}})},
      {"resources", {{"limits", std::move(limits)}}},
      {"volumeMounts", Json::array({{{"name", "scratch"}, {"mountPath", kScratch}}})},
      {"terminationMessagePath", "/dev/termination-log"},
      {"securityContext", {{"allowPrivilegeEscalation", false}, {"capabilities", {{"drop", Json::array({"ALL"})}}}}}};
  Json here{{"key", "metadata.name"}, {"operator", "In"}, {"values", Json::array({care.node->metadata.name})}};
  Json terms = Json::array({{{"matchFields", Json::array({std::move(here)})}}});
  const ResourceType& owner = api::NodeHealth::type();
  return {
      {"apiVersion", "v1"},
      {"kind", "Pod"},
      {"metadata",
       {{"name", check_pod_name(*care.health)},
        {"namespace", settings.ns},
        {"labels", {{"app.kubernetes.io/name", "pitcrew"}, {"app.kubernetes.io/component", "check"}}},
        {"annotations", {{kCheckId, id}}},
        {"ownerReferences", Json::array({{{"apiVersion", owner.api_version()},
                                          {"kind", owner.kind},
                                          {"name", care.health->metadata.name},
                                          {"uid", care.health->metadata.uid}}})}}},
      {"spec",
       {{"restartPolicy", "Never"},
        {"activeDeadlineSeconds", std::max<int64_t>(1, std::chrono::duration_cast<seconds>(settings.deadline).count())},
        {"automountServiceAccountToken", false},
        {"enableServiceLinks", false},
        {"tolerations", tolerations()},
        {"affinity",
         {{"nodeAffinity",
           {{"requiredDuringSchedulingIgnoredDuringExecution", {{"nodeSelectorTerms", std::move(terms)}}}}}}},
        {"securityContext", {{"seccompProfile", {{"type", "RuntimeDefault"}}}}},
        {"containers", Json::array({std::move(container)})},
        // On the disk where the node's pods have theirs: local NVMe, where the node was set up so.
        {"volumes", Json::array({{{"name", "scratch"}, {"emptyDir", {{"sizeLimit", "4Gi"}}}}})}}}};
}

std::vector<api::CheckResult> check_results(const Json& pod, const std::string& id, Instant now) {
  std::string message, why;
  const Json* status = find(pod, "status");
  if (status != nullptr) {
    why = status->value("reason", "");
    kube::fields::each(find(*status, "containerStatuses"), [&](const Json& container) {
      if (const Json* waiting = find(container, "state", "waiting"); waiting != nullptr && why.empty()) {
        why = "its container can't be started: " + waiting->value("reason", "") + " " + waiting->value("message", "");
      }
      const Json* ended = find(container, "state", "terminated");
      if (ended == nullptr) return;
      message = ended->value("message", "");
      if (why.empty()) why = ended->value("reason", "");
    });
  }
  if (why.empty()) why = "no reason given";
  if (message.empty()) return {no_report(id, "the check's pod ended without a report: " + why, now)};
  const auto json = parse_json(message);
  const auto report = json ? api::CheckReport::decode(*json) : Result<api::CheckReport>(json.error());
  if (!report) return {no_report(id, "the check's report can't be read: " + report.error().message, now)};
  std::vector<api::CheckResult> results = report->results();
  for (api::CheckResult& result : results) result.id = id;
  if (results.empty()) return {no_report(id, "nothing of the node could be checked", now)};
  return results;
}

}  // namespace pitcrew::control
