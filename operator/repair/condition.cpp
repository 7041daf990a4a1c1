#include "operator/repair/condition.hpp"

#include "lib/kube/types/fields.hpp"

namespace pitcrew::control {
namespace {

using kube::fields::find;

const kube::NodeCondition* condition_in(const kube::Node& node) {
  for (const kube::NodeCondition& condition : node.conditions) {
    if (condition.type == kAcceleratedHardwareReady) return &condition;
  }
  return nullptr;
}

}  // namespace

std::string condition_writer(const Json& node) {
  static const std::string key = std::string(R"(k:{"type":")") + kAcceleratedHardwareReady + R"("})";
  bool ours = false;
  std::string other;
  if (const Json* metadata = find(node, "metadata")) {
    kube::fields::each(find(*metadata, "managedFields"), [&](const Json& entry) {
      const Json* fields = find(entry, "fieldsV1", "f:status");
      const Json* conditions = fields == nullptr ? nullptr : find(*fields, "f:conditions");
      if (conditions == nullptr || !conditions->contains(key)) return;
      const std::string manager = entry.value("manager", "");
      if (manager == kRepairManager) {
        ours = true;
      } else if (other.empty()) {
        other = manager.empty() ? "somebody" : manager;
      }
    });
  }
  if (!other.empty() || ours) return other;
  bool there = false;
  kube::fields::each(find(node, "status", "conditions"), [&](const Json& condition) {
    there = there || condition.value("type", "") == kAcceleratedHardwareReady;
  });
  return there ? "somebody" : "";
}

bool condition_says(const kube::Node& node, bool ready, const std::string& reason) {
  const kube::NodeCondition* condition = condition_in(node);
  return condition != nullptr && condition->status == (ready ? "True" : "False") && condition->reason == reason;
}

Json condition_of(const kube::Node& node, bool ready, const std::string& reason, const std::string& message,
                  Instant now) {
  const std::string status = ready ? "True" : "False";
  const kube::NodeCondition* before = condition_in(node);
  const Instant since = before != nullptr && before->status == status ? before->last_transition : now;
  return {{"metadata", {{"name", node.metadata.name}}},
          {"status",
           {{"conditions", Json::array({{{"type", kAcceleratedHardwareReady},
                                         {"status", status},
                                         {"reason", reason},
                                         {"message", message},
                                         {"lastHeartbeatTime", to_rfc3339(now)},
                                         {"lastTransitionTime", to_rfc3339(since)}}})}}}};
}

}  // namespace pitcrew::control
