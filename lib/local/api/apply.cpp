#include "lib/local/api/apply.hpp"

#include <map>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::local {
namespace {

// The key of the lists that are merged element by element (x-kubernetes-list-map-keys of the core types).
const std::string* list_key(const std::string& field) {
  static const std::map<std::string, std::string> kKeys{
      {"containers", "name"},       {"initContainers", "name"}, {"env", "name"},
      {"volumes", "name"},          {"conditions", "type"},     {"ownerReferences", "uid"},
      {"volumeMounts", "mountPath"}};
  const auto found = kKeys.find(field);
  return found == kKeys.end() ? nullptr : &found->second;
}

bool keyed(const Json& list, const std::string& key) {
  if (!list.is_array() || list.empty()) return false;
  for (const Json& element : list) {
    if (!element.is_object() || !element.contains(key)) return false;
  }
  return true;
}

// What a config says, as a tree of FieldsV1: {"f:data": {"f:x": {}}}. A leaf is an empty object.
Json fields_of(const Json& value, const std::string& field) {
  Json fields = Json::object();
  if (value.is_object()) {
    for (auto member = value.begin(); member != value.end(); ++member)
      fields["f:" + member.key()] = fields_of(*member, member.key());
  } else if (const std::string* key = list_key(field); key != nullptr && keyed(value, *key)) {
    for (const Json& element : value) fields["k:" + Json({{*key, element[*key]}}).dump()] = fields_of(element, "");
  }
  return fields;
}

Json owned_fields(const Json& config) {
  Json fields = fields_of(config, "");
  for (const char* own : {"f:apiVersion", "f:kind"}) fields.erase(own);
  if (const auto metadata = fields.find("f:metadata"); metadata != fields.end()) {
    for (const char* own : {"f:name", "f:namespace", "f:uid", "f:resourceVersion"}) metadata->erase(own);
    if (metadata->empty()) fields.erase(metadata);
  }
  return fields;
}

// The child of a value that a field's name means, or null.
Json* child(Json& value, const std::string& name) {
  if (name.rfind("f:", 0) == 0) {
    if (!value.is_object()) return nullptr;
    const auto found = value.find(name.substr(2));
    return found == value.end() ? nullptr : &*found;
  }
  if (!value.is_array()) return nullptr;
  const auto key = parse_json(name.substr(2));
  if (!key) return nullptr;
  for (Json& element : value) {
    if (element.is_object() && element.contains(key->begin().key()) && element[key->begin().key()] == *key->begin())
      return &element;
  }
  return nullptr;
}

void erase_child(Json& value, const std::string& name) {
  if (name.rfind("f:", 0) == 0) {
    value.erase(name.substr(2));
    return;
  }
  if (const Json* element = child(value, name)) value.erase(value.begin() + (element - &value[0]));
}

// Lays `config` over `value` along its fields.
void lay_over(Json& value, const Json& config, const std::string& field) {
  if (config.is_object() && value.is_object()) {
    for (auto member = config.begin(); member != config.end(); ++member)
      lay_over(value[member.key()], *member, member.key());
    return;
  }
  const std::string* key = list_key(field);
  if (key != nullptr && keyed(config, *key) && keyed(value, *key)) {
    for (const Json& element : config) {
      Json* known = child(value, "k:" + Json({{*key, element[*key]}}).dump());
      if (known != nullptr) {
        lay_over(*known, element, "");
      } else {
        value.push_back(element);
      }
    }
    return;
  }
  value = config;
}

// Removes what `before` has and neither `now` nor one of the others.
void remove_dropped(Json& value, const Json& before, const Json& now, const std::vector<const Json*>& others) {
  for (auto field = before.begin(); field != before.end(); ++field) {
    const std::string& name = field.key();
    Json* inner = child(value, name);
    if (inner == nullptr) continue;
    std::vector<const Json*> other_fields;
    for (const Json* other : others) {
      if (const auto found = other->find(name); found != other->end()) other_fields.push_back(&*found);
    }
    static const Json kNothing = Json::object();
    const auto still = now.find(name);
    if (still == now.end() && other_fields.empty()) {
      erase_child(value, name);
    } else if (!field->empty()) {
      remove_dropped(*inner, *field, still == now.end() ? kNothing : *still, other_fields);
    }
  }
}

// Walks the leaves that two managers have in common and whose values differ; with `take` they leave `theirs`.
void find_conflicts(Json& theirs, const Json& ours, Json& stored, Json& config, const std::string& path, bool take,
                    std::vector<std::string>& conflicts) {
  std::vector<std::string> taken;
  for (auto field = theirs.begin(); field != theirs.end(); ++field) {
    const auto mine = ours.find(field.key());
    Json* is = child(stored, field.key());
    Json* wanted = child(config, field.key());
    if (mine == ours.end() || is == nullptr || wanted == nullptr) continue;
    const std::string here = path + "." + field.key().substr(2);
    if (!field->empty() && !mine->empty()) {
      find_conflicts(*field, *mine, *is, *wanted, here, take, conflicts);
    } else if (is->is_object() && wanted->is_object()) {
      continue;  // an empty map says nothing about its members
    } else if (*is != *wanted) {
      conflicts.push_back(here);
      taken.push_back(field.key());
    }
  }
  if (!take) return;
  for (const std::string& name : taken) theirs.erase(name);
}

// The fields in which two values differ: `gone` those that `next` has not any more, `set` those that it has otherwise
// or anew.
void find_changes(const Json& old, const Json& next, const std::string& field, Json& set, Json& gone) {
  const std::string* key = list_key(field);
  const bool members = old.is_object() && next.is_object();
  const bool elements = key != nullptr && keyed(old, *key) && keyed(next, *key);
  if (!members && !elements) {
    if (old != next) set = fields_of(next, field);
    return;
  }
  const auto name_of = [&](const Json& element) { return "k:" + Json({{*key, element[*key]}}).dump(); };
  const auto compare = [&](const std::string& name, const Json* before, const Json* now, const std::string& inner) {
    if (before == nullptr) {
      set[name] = fields_of(*now, inner);
    } else if (now == nullptr) {
      gone[name] = Json::object();
    } else if (*before != *now) {
      Json inner_set, inner_gone;
      find_changes(*before, *now, inner, inner_set, inner_gone);
      if (!inner_set.is_null()) set[name] = std::move(inner_set);
      if (!inner_gone.is_null()) gone[name] = std::move(inner_gone);
    }
  };
  Json a = old, b = next;
  if (members) {
    for (auto member = b.begin(); member != b.end(); ++member) {
      const std::string name = "f:" + member.key();
      compare(name, child(a, name), &*member, member.key());
    }
    for (auto member = a.begin(); member != a.end(); ++member) {
      const std::string name = "f:" + member.key();
      if (child(b, name) == nullptr) compare(name, &*member, nullptr, member.key());
    }
    return;
  }
  for (const Json& element : b) compare(name_of(element), child(a, name_of(element)), &element, "");
  for (const Json& element : a) {
    if (child(b, name_of(element)) == nullptr) compare(name_of(element), &element, nullptr, "");
  }
}

// Takes the leaves of `fields`, and all below them, out of `owned`; what is left empty by that goes too.
void subtract(Json& owned, const Json& fields) {
  for (auto field = fields.begin(); field != fields.end(); ++field) {
    const auto found = owned.find(field.key());
    if (found == owned.end()) continue;
    const bool leaf = field->empty() || found->empty();
    if (!leaf) subtract(*found, *field);
    if (leaf || found->empty()) owned.erase(field.key());
  }
}

void unite(Json& owned, const Json& fields) {
  for (auto field = fields.begin(); field != fields.end(); ++field) {
    if (!owned.contains(field.key())) owned[field.key()] = Json::object();
    unite(owned[field.key()], *field);
  }
}

}  // namespace

Json managers_after_update(const Json& old, const Json& next, const ApplyRequest& request) {
  const auto content = [](Json object) {
    for (const char* own : {"apiVersion", "kind"}) object.erase(own);
    if (!object.contains("metadata")) return object;
    for (const char* own : {"managedFields", "resourceVersion", "uid", "name", "namespace", "generation",
                            "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"})
      object["metadata"].erase(own);
    return object;
  };
  Json set = Json::object(), gone = Json::object();
  find_changes(content(old), content(next), "", set, gone);
  Json managers = Json::array();
  Json mine = {{"manager", request.manager},
               {"operation", "Update"},
               {"apiVersion", next.value("apiVersion", "")},
               {"fieldsType", "FieldsV1"},
               {"fieldsV1", Json::object()}};
  if (!request.subresource.empty()) mine["subresource"] = request.subresource;
  kube::fields::each(kube::fields::find(old, "metadata", "managedFields"), [&](Json known) {
    const bool same = known.value("manager", "") == request.manager && known.value("operation", "") == "Update" &&
                      known.value("subresource", "") == request.subresource;
    subtract(known["fieldsV1"], gone);
    if (!same) subtract(known["fieldsV1"], set);
    if (same) {
      mine = std::move(known);
    } else if (!known["fieldsV1"].empty()) {
      managers.push_back(std::move(known));
    }
  });
  unite(mine["fieldsV1"], set);
  mine["time"] = to_rfc3339(request.now);
  if (!mine["fieldsV1"].empty()) managers.push_back(std::move(mine));
  return managers;
}

Result<Json> apply_config(const Json& stored, const Json& config, const ApplyRequest& request) {
  if (!config.is_object()) return Error(Code::kInvalidArgument, "apply: the body must be an object");
  if (request.manager.empty()) return Error(Code::kInvalidArgument, "apply: fieldManager is required");
  if (kube::fields::find(config, "metadata", "managedFields") != nullptr)
    return Error(Code::kInvalidArgument, "apply: metadata.managedFields must be nil");
  Json wanted = config;
  Json object = stored.is_null() ? config : stored;
  const Json ours = owned_fields(config);
  Json entry = {
      {"manager", request.manager},      {"operation", "Apply"},     {"apiVersion", config.value("apiVersion", "")},
      {"time", to_rfc3339(request.now)}, {"fieldsType", "FieldsV1"}, {"fieldsV1", ours}};
  if (!request.subresource.empty()) entry["subresource"] = request.subresource;
  Json managers = Json::array();
  Json before = Json::object();
  std::vector<std::string> conflicts;
  std::string rival;
  kube::fields::each(kube::fields::find(object, "metadata", "managedFields"), [&](Json known) {
    const bool same =
        known.value("manager", "") == request.manager && known.value("subresource", "") == request.subresource;
    if (same) {
      before = known["fieldsV1"];
      if (before == ours) entry["time"] = known["time"];  // nothing new: not even the time
      return;
    }
    const size_t count = conflicts.size();
    find_conflicts(known["fieldsV1"], ours, object, wanted, "", request.force, conflicts);
    if (conflicts.size() > count && rival.empty()) rival = known.value("manager", "");
    managers.push_back(std::move(known));
  });
  if (!conflicts.empty() && !request.force) {
    std::string message = "Apply failed with " + std::to_string(conflicts.size()) + " conflict" +
                          (conflicts.size() == 1 ? "" : "s") + ": conflict with \"" + rival + "\":";
    for (const std::string& path : conflicts) message += " " + path;
    return Error(Code::kConflict, message);
  }
  std::vector<const Json*> others;
  for (const Json& known : managers) others.push_back(&known["fieldsV1"]);
  if (!stored.is_null()) {
    remove_dropped(object, before, ours, others);
    lay_over(object, config, "");
  }
  managers.push_back(std::move(entry));
  object["metadata"]["managedFields"] = std::move(managers);
  return object;
}

}  // namespace pitcrew::local
