#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube::fields {

const Json* find(const Json& json, const char* key) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

const Json* find(const Json& json, const char* key, const char* inner) {
  const Json* outer = find(json, key);
  return outer == nullptr ? nullptr : find(*outer, inner);
}

void read(const Json& json, const char* key, std::string& out) {
  const Json* value = find(json, key);
  if (value != nullptr && value->is_string()) out = value->get_ref<const std::string&>();
}

void read(const Json& json, const char* key, bool& out) {
  const Json* value = find(json, key);
  if (value != nullptr && value->is_boolean()) out = value->get<bool>();
}

void read(const Json& json, const char* key, int64_t& out) {
  const Json* value = find(json, key);
  if (value != nullptr && value->is_number_integer()) out = value->get<int64_t>();
}

void read(const Json& json, const char* key, int& out) {
  int64_t wide = out;
  read(json, key, wide);
  out = static_cast<int>(wide);
}

void read(const Json& json, const char* key, std::optional<Instant>& out) {
  const Json* value = find(json, key);
  if (value == nullptr || !value->is_string()) return;
  if (auto time = parse_rfc3339(value->get_ref<const std::string&>())) out = *time;
}

void read(const Json& json, const char* key, Instant& out) {
  std::optional<Instant> time;
  read(json, key, time);
  if (time) out = *time;
}

void read(const Json& json, const char* key, std::vector<std::string>& out) {
  each(find(json, key), [&](const Json& element) {
    if (element.is_string()) out.push_back(element.get_ref<const std::string&>());
  });
}

void read(const Json& json, const char* key, std::map<std::string, std::string>& out) {
  const Json* map = find(json, key);
  if (map == nullptr || !map->is_object()) return;
  for (auto entry = map->begin(); entry != map->end(); ++entry) {
    if (entry->is_string()) out.emplace_hint(out.end(), entry.key(), entry->get_ref<const std::string&>());
  }
}

namespace {

OwnerReference read_owner(const Json& json) {
  OwnerReference owner;
  read(json, "apiVersion", owner.api_version);
  read(json, "kind", owner.kind);
  read(json, "name", owner.name);
  read(json, "uid", owner.uid);
  read(json, "controller", owner.controller);
  read(json, "blockOwnerDeletion", owner.block_owner_deletion);
  return owner;
}

}  // namespace

Status read_meta(const Json& object, const ResourceType& type, ObjectMeta& meta) {
  const Json* kind = find(object, "kind");
  if (kind != nullptr && kind->is_string() && kind->get_ref<const std::string&>() != type.kind) {
    return Error(Code::kDataLoss, "expected a " + type.kind + ", got a " + kind->get<std::string>());
  }
  const Json* metadata = find(object, "metadata");
  if (metadata == nullptr || !metadata->is_object()) {
    return Error(Code::kDataLoss,
                 "a " + type.kind + " without metadata; the server's answer is not one of the Kubernetes API");
  }
  read(*metadata, "name", meta.name);
  if (meta.name.empty()) return Error(Code::kDataLoss, "a " + type.kind + " without metadata.name");
  read(*metadata, "namespace", meta.ns);
  read(*metadata, "uid", meta.uid);
  read(*metadata, "resourceVersion", meta.resource_version);
  read(*metadata, "generation", meta.generation);
  read(*metadata, "labels", meta.labels);
  read(*metadata, "annotations", meta.annotations);
  each(find(*metadata, "ownerReferences"), [&](const Json& owner) { meta.owners.push_back(read_owner(owner)); });
  read(*metadata, "finalizers", meta.finalizers);
  read(*metadata, "creationTimestamp", meta.creation_time);
  read(*metadata, "deletionTimestamp", meta.deletion_time);
  return {};
}

JsonSelection with_meta(std::vector<std::string_view> paths) {
  for (const std::string_view path :
       {"kind", "metadata.name", "metadata.namespace", "metadata.uid", "metadata.resourceVersion",
        "metadata.generation", "metadata.labels", "metadata.annotations", "metadata.ownerReferences",
        "metadata.finalizers", "metadata.creationTimestamp", "metadata.deletionTimestamp"}) {
    paths.push_back(path);
  }
  return JsonSelection(paths);
}

Json envelope(const ResourceType& type, const ObjectMeta& meta) {
  Json json = Json::object();
  json["apiVersion"] = type.api_version();
  json["kind"] = type.kind;
  json["metadata"] = to_json(meta);
  return json;
}

}  // namespace pitcrew::kube::fields
