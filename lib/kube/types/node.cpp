#include "lib/kube/types/node.hpp"

#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/quantity.hpp"

namespace pitcrew::kube {

const ResourceType& Node::type() {
  static const ResourceType kType{"", "v1", "Node", "nodes", false};
  return kType;
}

bool Node::ready() const {
  for (const NodeCondition& condition : conditions) {
    if (condition.type == "Ready") return condition.status == "True";
  }
  return false;
}

Result<Node> Node::decode(const Json& json) {
  Node node;
  PITCREW_TRY(fields::read_meta(json, type(), node.metadata));
  if (const Json* spec = fields::find(json, "spec")) {
    fields::read(*spec, "providerID", node.provider_id);
    fields::read(*spec, "unschedulable", node.unschedulable);
    fields::each(fields::find(*spec, "taints"), [&](const Json& value) {
      Taint& taint = node.taints.emplace_back();
      fields::read(value, "key", taint.key);
      fields::read(value, "value", taint.value);
      fields::read(value, "effect", taint.effect);
    });
  }
  const Json* status = fields::find(json, "status");
  if (status == nullptr) return node;
  if (const Json* allocatable = fields::find(*status, "allocatable")) add_quantities(*allocatable, node.allocatable);
  fields::each(fields::find(*status, "conditions"), [&](const Json& value) {
    NodeCondition& condition = node.conditions.emplace_back();
    fields::read(value, "type", condition.type);
    fields::read(value, "status", condition.status);
    fields::read(value, "reason", condition.reason);
    fields::read(value, "message", condition.message);
    fields::read(value, "lastTransitionTime", condition.last_transition);
  });
  fields::each(fields::find(*status, "addresses"), [&](const Json& value) {
    std::string kind;
    fields::read(value, "type", kind);
    if (kind == "InternalIP" && node.internal_ip.empty()) fields::read(value, "address", node.internal_ip);
  });
  return node;
}

const JsonSelection& Node::selection() {
  // status.images, hundreds of lines of a node that has run for a while, is what this saves.
  static const JsonSelection kSelection =
      fields::with_meta({"spec.providerID", "spec.unschedulable", "spec.taints", "status.allocatable",
                         "status.conditions", "status.addresses"});
  return kSelection;
}

Json Node::encode() const {
  Json json = fields::envelope(type(), metadata);
  Json& spec = json["spec"] = Json::object();
  if (!provider_id.empty()) spec["providerID"] = provider_id;
  if (unschedulable) spec["unschedulable"] = true;
  for (const Taint& taint : taints) {
    Json value = {{"key", taint.key}, {"effect", taint.effect}};
    if (!taint.value.empty()) value["value"] = taint.value;
    spec["taints"].push_back(std::move(value));
  }
  Json& status = json["status"] = Json::object();
  if (!allocatable.empty()) status["allocatable"] = quantities_json(allocatable);
  for (const NodeCondition& condition : conditions) {
    status["conditions"].push_back({{"type", condition.type},
                                    {"status", condition.status},
                                    {"reason", condition.reason},
                                    {"message", condition.message},
                                    {"lastTransitionTime", to_rfc3339(condition.last_transition)}});
  }
  if (!internal_ip.empty()) status["addresses"] = Json::array({{{"type", "InternalIP"}, {"address", internal_ip}}});
  return json;
}

}  // namespace pitcrew::kube
