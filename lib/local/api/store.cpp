#include "lib/local/api/store.hpp"

#include <algorithm>

#include "lib/kube/types/event.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/requests.hpp"
#include "lib/local/api/rules.hpp"

namespace pitcrew::local {

using kube::Payload;
using kube::WatchEventType;

Store::Store(Loop& loop, const ApiServerSettings& settings, OwnerIsGone owner_is_gone)
    : loop_(loop), settings_(settings), owner_is_gone_(std::move(owner_is_gone)) {
  const auto core = [this](const char* kind, const char* plural, bool status, bool namespaced = true) {
    add({"", "v1", kind, plural, namespaced}, {status, {}});
  };
  add(kube::Pod::type(), {true, {}});
  add(kube::Node::type(), {true, {}});
  add(kube::Lease::type(), {false, {}});
  add(kube::Event::type(), {false, {}});
  core("Secret", "secrets", false);
  core("ConfigMap", "configmaps", false);
  core("Service", "services", true);
  core("ServiceAccount", "serviceaccounts", false);
  core("ResourceQuota", "resourcequotas", true);
  add({"discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true}, {false, {}});
  add({"scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false}, {false, {}});
  add({"policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true}, {true, {}});
  add({"authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false}, {false, {}});
  Type& events = *find(kube::Event::type());
  events.expiry = std::make_unique<Expiry>(
      loop_, settings_.event_lifetime,
      [this, &events](const ObjectKey& key, const std::string& version) { expire(events, key, version); });
}

void Store::add(const ResourceType& resource, ApiServer::TypeOptions options) {
  if (Type* known = find(resource)) {
    known->options = std::move(options);
    return;
  }
  Type& type = types_.emplace_back();
  type.resource = resource;
  type.options = std::move(options);
  type.number = types_.size() - 1;
  type.watches =
      std::make_unique<WatchHub>(loop_, type.resource, settings_.history, settings_.bookmark_every, version_);
}

Store::Type* Store::find(const ResourceType& resource) {
  for (Type& type : types_) {
    if (type.resource.plural == resource.plural && type.resource.group == resource.group) return &type;
  }
  return nullptr;
}

Payload Store::commit(Type& type, const ObjectKey& key, Json object, const Payload& old) {
  object["metadata"]["resourceVersion"] = std::to_string(++version_);
  Payload body = Payload::of(std::move(object));
  type.objects[key] = body;
  if (type.expiry) type.expiry->written(key, std::to_string(version_));
  count_write(type);
  const Owners::Dependent self{type.number, key};
  if (old.empty()) {
    owners_.added(self, **body.json());
  } else {
    owners_.changed(self, **old.json(), **body.json());
  }
  tell(type, key, old.empty() ? WatchEventType::kAdded : WatchEventType::kModified, body, old);
  if (old.empty()) check_owners(**body.json());
  return body;
}

Payload Store::erase(Type& type, const ObjectKey& key) {
  count_write(type);
  return take_out(type, key);
}

void Store::expire(Type& type, const ObjectKey& key, const std::string& version) {
  const auto found = type.objects.find(key);
  if (found == type.objects.end() || rules::version_of(**found->second.json()) != version) return;
  take_out(type, key);
}

Payload Store::take_out(Type& type, const ObjectKey& key) {
  const auto found = type.objects.find(key);
  const Payload old = found->second;
  Json last = **old.json();
  last["metadata"]["resourceVersion"] = std::to_string(++version_);
  const Payload body = Payload::of(std::move(last));
  type.objects.erase(found);
  owners_.removed({type.number, key}, **old.json());
  tell(type, key, WatchEventType::kDeleted, body, old);
  const std::string uid = rules::uid_of(**old.json());
  if (!owners_.dependents_of(uid).empty()) owner_is_gone_(uid);
  return body;
}

void Store::count_write(Type& type) {
  ++type.writes;
  ++writes_;
}

void Store::tell(Type& type, const ObjectKey& key, WatchEventType kind, const Payload& body, const Payload& old) {
  for (const ApiServer::Observer& observer : observers_) observer({kind, type.resource, key, version_, body, old});
  type.watches->publish({kind, version_, body, old});
}

void Store::check_owners(const Json& object) {
  for (const std::string& owner : Owners::owners_of(object)) {
    if (!owners_.alive(owner)) owner_is_gone_(owner);
  }
}

Json Store::snapshot() const {
  Json objects = Json::array();
  for (const Type& type : types_) {
    for (const auto& [key, body] : type.objects) objects.push_back(**body.json());
  }
  return {{"format", 1}, {"resourceVersion", std::to_string(version_)}, {"objects", std::move(objects)}};
}
Status Store::restore(const Json& snapshot) {
  for (const Type& type : types_) {
    if (!type.objects.empty())
      return Error(Code::kInvalidArgument, "restore: the server already has objects; restore into an empty one");
  }
  std::string version;
  kube::fields::read(snapshot, "resourceVersion", version);
  const auto restored = number(version);
  const Json* objects = kube::fields::find(snapshot, "objects");
  if (!restored || objects == nullptr || snapshot.value("format", 0) != 1) {
    return Error(Code::kDataLoss, "restore: this is not a snapshot of format 1");
  }
  std::vector<std::tuple<Type*, ObjectKey, Payload>> found;
  for (const Json& object : *objects) {
    const std::string* api_version = text_at(object, "apiVersion");
    const std::string* kind = text_at(object, "kind");
    const std::string* name = text_at(object, "metadata.name");
    if (api_version == nullptr || kind == nullptr || name == nullptr) {
      return Error(Code::kDataLoss, "restore: an object without apiVersion, kind or name");
    }
    const auto type = std::find_if(types_.begin(), types_.end(), [&](const Type& candidate) {
      return candidate.resource.kind == *kind && candidate.resource.api_version() == *api_version;
    });
    if (type == types_.end()) {
      return Error(Code::kInvalidArgument,
                   "restore: type " + *api_version + " " + *kind + " is not known; register it first");
    }
    const std::string* ns = text_at(object, "metadata.namespace");
    found.emplace_back(&*type, ObjectKey{ns == nullptr ? "" : *ns, *name}, Payload::of(object));
  }
  version_ = std::max(version_, *restored);
  for (auto& [type, key, body] : found) {
    owners_.added({type->number, key}, **body.json());
    if (type->expiry) type->expiry->written(key, rules::version_of(**body.json()));
    type->objects[key] = std::move(body);
  }
  for (Type& type : types_) type.watches->compact();
  for (const auto& [type, key, body] : found) {
    check_owners(**type->objects[key].json());
  }
  return {};
}

}  // namespace pitcrew::local
