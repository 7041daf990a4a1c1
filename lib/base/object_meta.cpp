#include "lib/base/object_meta.hpp"

#include <algorithm>

namespace pitcrew {
namespace {

void read_string_map(ObjectReader& reader, std::string_view key, std::map<std::string, std::string>& out) {
  const Json* map = reader.raw(key);
  if (map == nullptr) return;
  if (!map->is_object()) {
    reader.problem(key, "must be an object of texts");
    return;
  }
  for (const auto& [name, value] : map->items()) {
    if (value.is_string()) {
      out[name] = value.get<std::string>();
    } else {
      reader.problem(std::string(key) + "." + name, "must be text; put it in quotes");
    }
  }
}

}  // namespace

std::string to_string(const ObjectKey& key) { return key.ns.empty() ? key.name : key.ns + "/" + key.name; }

const OwnerReference* ObjectMeta::controller() const {
  for (const OwnerReference& owner : owners) {
    if (owner.controller) return &owner;
  }
  return nullptr;
}

Json to_json(const ObjectMeta& meta) {
  Json json = {{"name", meta.name}};
  if (!meta.ns.empty()) json["namespace"] = meta.ns;
  if (!meta.uid.empty()) json["uid"] = meta.uid;
  if (!meta.resource_version.empty()) json["resourceVersion"] = meta.resource_version;
  if (meta.generation != 0) json["generation"] = meta.generation;
  if (!meta.labels.empty()) json["labels"] = meta.labels;
  if (!meta.annotations.empty()) json["annotations"] = meta.annotations;
  for (const OwnerReference& owner : meta.owners) {
    Json reference = {
        {"apiVersion", owner.api_version}, {"kind", owner.kind}, {"name", owner.name}, {"uid", owner.uid}};
    if (owner.controller) reference["controller"] = true;
    if (owner.block_owner_deletion) reference["blockOwnerDeletion"] = true;
    json["ownerReferences"].push_back(std::move(reference));
  }
  if (!meta.finalizers.empty()) json["finalizers"] = meta.finalizers;
  if (meta.creation_time) json["creationTimestamp"] = to_rfc3339(*meta.creation_time);
  if (meta.deletion_time) json["deletionTimestamp"] = to_rfc3339(*meta.deletion_time);
  return json;
}

void read_object_meta(const Json& object, ObjectMeta& meta, Problems& problems) {
  ObjectReader reader(object, "metadata", problems);
  reader.read("name", meta.name);
  reader.read("namespace", meta.ns);
  reader.read("uid", meta.uid);
  reader.read("resourceVersion", meta.resource_version);
  reader.read("generation", meta.generation);
  read_string_map(reader, "labels", meta.labels);
  read_string_map(reader, "annotations", meta.annotations);
  reader.each("ownerReferences", [&](const Json& value, const std::string& path) {
    ObjectReader owner(value, path, problems);
    OwnerReference& reference = meta.owners.emplace_back();
    owner.read("apiVersion", reference.api_version);
    owner.read("kind", reference.kind);
    owner.read("name", reference.name);
    owner.read("uid", reference.uid);
    owner.read("controller", reference.controller);
    owner.read("blockOwnerDeletion", reference.block_owner_deletion);
  });
  reader.read("finalizers", meta.finalizers);
  reader.read("creationTimestamp", meta.creation_time);
  reader.read("deletionTimestamp", meta.deletion_time);
}

Json object_head(const ResourceType& type, const ObjectMeta& meta) {
  return {{"apiVersion", type.api_version()}, {"kind", type.kind}, {"metadata", to_json(meta)}};
}

void read_object_head(ObjectReader& reader, const ResourceType& type, ObjectMeta& meta, Problems& problems,
                      const std::string& remedy) {
  std::string api_version, kind;
  if (!reader.read("apiVersion", api_version) || api_version != type.api_version()) {
    reader.problem("apiVersion", "must be " + type.api_version());
  }
  if (!reader.read("kind", kind) || kind != type.kind) reader.problem("kind", "must be " + type.kind);
  if (const Json* metadata = reader.raw("metadata")) {
    read_object_meta(*metadata, meta, problems);
  } else {
    reader.problem("metadata", "is missing; " + remedy);
  }
}

Json to_json(const Condition& condition) {
  return {{"type", condition.type},
          {"status", condition.status ? "True" : "False"},
          {"reason", condition.reason},
          {"message", condition.message},
          {"observedGeneration", condition.observed_generation},
          {"lastTransitionTime", to_rfc3339(condition.last_transition)}};
}

void read_condition(const Json& json, const std::string& path, Condition& condition, Problems& problems) {
  ObjectReader reader(json, path, problems);
  reader.read("type", condition.type);
  std::string status;
  reader.read("status", status);
  condition.status = status == "True";
  reader.read("reason", condition.reason);
  reader.read("message", condition.message);
  reader.read("observedGeneration", condition.observed_generation);
  reader.read("lastTransitionTime", condition.last_transition);
}

bool set_condition(std::vector<Condition>& conditions, Condition condition) {
  const auto found =
      std::find_if(conditions.begin(), conditions.end(), [&](const Condition& c) { return c.type == condition.type; });
  if (found == conditions.end()) {
    conditions.push_back(std::move(condition));
    return true;
  }
  if (found->status == condition.status) condition.last_transition = found->last_transition;
  if (*found == condition) return false;
  *found = std::move(condition);
  return true;
}

const Condition* find_condition(const std::vector<Condition>& conditions, std::string_view type) {
  const auto found =
      std::find_if(conditions.begin(), conditions.end(), [&](const Condition& c) { return c.type == type; });
  return found == conditions.end() ? nullptr : &*found;
}

}  // namespace pitcrew
