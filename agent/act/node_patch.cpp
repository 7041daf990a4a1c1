#include "agent/act/node_patch.hpp"

#include "lib/api/health_names.hpp"
#include "lib/kube/types/fields.hpp"

namespace pitcrew::agent {
namespace {

using kube::fields::find;

Json taints_after(const Json& node, bool ours, Instant now) {
  Json taints = Json::array();
  bool there = false;
  kube::fields::each(find(node, "spec", "taints"), [&](const Json& taint) {
    const bool is_ours = taint.is_object() && taint.value("key", "") == api::health::kUnhealthy;
    if (is_ours && (!ours || there)) return;
    there = there || is_ours;
    taints.push_back(taint);
  });
  if (ours && !there) {
    taints.push_back({{"key", api::health::kUnhealthy}, {"effect", "NoSchedule"}, {"timeAdded", to_rfc3339(now)}});
  }
  return taints.empty() ? Json() : taints;
}

Json set_or_remove(const std::string& value) { return value.empty() ? Json() : Json(value); }

}  // namespace

bool cordon_is_ours(const Json& node) {
  bool ours = false, others = false;
  kube::fields::each(find(node, "metadata", "managedFields"), [&](const Json& entry) {
    const Json* fields = find(entry, "fieldsV1", "f:spec");
    if (fields == nullptr || find(*fields, "f:unschedulable") == nullptr) return;
    (entry.value("manager", "") == api::health::kFieldManager ? ours : others) = true;
  });
  return ours && !others;
}

NodePatch node_patch(const NodeChange& change, const Json& node, Instant now) {
  NodePatch patch;
  Json metadata = Json::object(), spec = Json::object();
  if (const Json* meta = find(node, "metadata")) {
    for (const char* key : {"uid", "resourceVersion"}) {
      if (const Json* value = find(*meta, key)) metadata[key] = *value;
    }
  }
  if (change.label) metadata["labels"][api::health::kUnhealthy] = set_or_remove(*change.label);
  if (change.annotation) metadata["annotations"][api::health::kCordoned] = set_or_remove(*change.annotation);
  if (change.taint) spec["taints"] = taints_after(node, *change.taint, now);
  if (change.cordon) spec["unschedulable"] = true;
  if (change.uncordon) {
    if (cordon_is_ours(node)) {
      spec["unschedulable"] = nullptr;
    } else {
      patch.kept = true;
    }
  }
  patch.body["metadata"] = std::move(metadata);
  if (!spec.empty()) patch.body["spec"] = std::move(spec);
  return patch;
}

Json health_patch(const api::NodeHealth& wanted, const api::NodeHealth& old) {
  Json body = wanted.encode(), before = old.encode();
  Json& status = body["status"];
  if (!status.is_object()) status = Json::object();
  if (before.contains("status")) {
    for (const auto& [key, value] : before["status"].items()) {
      if (!status.contains(key)) status[key] = nullptr;
    }
  }
  status.erase("checks");
  return {{"metadata", {{"uid", old.metadata.uid}}}, {"status", std::move(status)}};
}

}  // namespace pitcrew::agent
