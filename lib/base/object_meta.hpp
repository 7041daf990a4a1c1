#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/json.hpp"
#include "lib/base/time.hpp"

namespace pitcrew {

// What a Kubernetes resource is called in the API's paths and bodies.
struct ResourceType {
  std::string group;    // "" for the core group
  std::string version;  // "v1"
  std::string kind;     // "Pod"
  std::string plural;   // "pods"
  bool namespaced = true;

  std::string api_version() const { return group.empty() ? version : group + "/" + version; }
  bool operator==(const ResourceType&) const = default;
};

struct ObjectKey {
  std::string ns;  // empty: cluster-scoped
  std::string name;
  auto operator<=>(const ObjectKey&) const = default;
};
std::string to_string(const ObjectKey& key);  // "namespace/name", or "name"

struct OwnerReference {
  std::string api_version;
  std::string kind;
  std::string name;
  std::string uid;
  bool controller = false;
  bool block_owner_deletion = false;
  bool operator==(const OwnerReference&) const = default;
};

// The metadata that every object carries, as far as Pitcrew reads and writes it. managedFields is never kept.
struct ObjectMeta {
  std::string name;
  std::string ns;
  std::string uid;
  std::string resource_version;
  int64_t generation = 0;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  std::vector<OwnerReference> owners;
  std::vector<std::string> finalizers;
  std::optional<Instant> creation_time;
  std::optional<Instant> deletion_time;

  ObjectKey key() const { return {ns, name}; }
  const OwnerReference* controller() const;
  bool operator==(const ObjectMeta&) const = default;
};

Json to_json(const ObjectMeta& meta);
// Fields that Pitcrew does not know are passed over: the API has more than we read.
void read_object_meta(const Json& object, ObjectMeta& meta, Problems& problems);

// apiVersion, kind and metadata of a whole object, to write and to read. `remedy` is what to do where there is no
// metadata.
Json object_head(const ResourceType& type, const ObjectMeta& meta);
void read_object_head(ObjectReader& reader, const ResourceType& type, ObjectMeta& meta, Problems& problems,
                      const std::string& remedy);

// metav1.Condition.
struct Condition {
  std::string type;
  bool status = false;
  std::string reason;  // CamelCase
  std::string message;
  int64_t observed_generation = 0;
  Instant last_transition;
  bool operator==(const Condition&) const = default;
};
Json to_json(const Condition& condition);
void read_condition(const Json& json, const std::string& path, Condition& condition, Problems& problems);

// Sets a condition; the transition time moves only where the status flips. True where anything changed.
bool set_condition(std::vector<Condition>& conditions, Condition condition);
const Condition* find_condition(const std::vector<Condition>& conditions, std::string_view type);

}  // namespace pitcrew
