#include "lib/local/api/writes.hpp"

#include <algorithm>

#include "lib/kube/types/fields.hpp"
#include "lib/local/api/answers.hpp"
#include "lib/local/api/apply.hpp"
#include "lib/local/api/patch.hpp"
#include "lib/local/api/requests.hpp"
#include "lib/local/api/rules.hpp"

namespace pitcrew::local {

using kube::Payload;
using kube::Request;
using kube::Response;
using kube::Verb;

namespace {

Response uid_conflict(const Store::Type& type, const ObjectKey& key, const std::string& uid, const Json& old) {
  return answers::conflict(
      type.resource, key,
      "Precondition failed: UID in precondition: " + uid + ", UID in object meta: " + rules::uid_of(old));
}
Response version_conflict(const Store::Type& type, const ObjectKey& key) {
  return answers::conflict(
      type.resource, key,
      "the object has been modified; please apply your changes to the latest version and try again");
}

// Nothing where `object` may be written over what is stored as `old`.
std::optional<Response> stale(const Store::Type& type, const ObjectKey& key, const Json& object, const Json& old) {
  const std::string uid = rules::uid_of(object);
  if (!uid.empty() && uid != rules::uid_of(old)) return uid_conflict(type, key, uid, old);
  const std::string version = rules::version_of(object);
  if (!version.empty() && version != rules::version_of(old)) return version_conflict(type, key);
  return std::nullopt;
}

}  // namespace

std::string random_text(Random& random, size_t length) {
  // Kubernetes' alphabet of generated names: no vowels, no digits that look like letters (apimachinery util/rand).
  static constexpr char kAlphabet[] = "bcdfghjklmnpqrstvwxz2456789";
  std::string text;
  for (size_t i = 0; i < length; ++i) text += kAlphabet[random.below(sizeof kAlphabet - 1)];
  return text;
}

std::string random_uid(Random& random) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string uid;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) uid += '-';
    uid += i == 12 ? '4' : i == 16 ? "89ab"[random.below(4)] : kHex[random.below(16)];
  }
  return uid;
}

Response Writes::create(Store::Type& type, const Request& request, const Json* managers) {
  auto body = body_of(request);
  if (!body) return answers::bad_request(body.error().message);
  Json& object = *body;
  Json& meta = object["metadata"];
  if (!meta.is_object()) return answers::bad_request("metadata must be an object with a name");
  if (!rules::version_of(object).empty()) {
    return answers::bad_request("resourceVersion should not be set on objects to be created");
  }
  ObjectKey key{type.resource.namespaced ? request.key.ns : "", ""};
  if (const std::string* ns = text_at(object, "metadata.namespace"); ns != nullptr && *ns != key.ns) {
    return answers::bad_request("the namespace of the object (" + *ns + ") does not match the request's (" + key.ns +
                                ")");
  }
  if (type.resource.namespaced && key.ns.empty())
    return answers::bad_request("an empty namespace may not be set during creation");
  if (const std::string* name = text_at(object, "metadata.name")) key.name = *name;
  if (const std::string* prefix = text_at(object, "metadata.generateName"); key.name.empty() && prefix != nullptr) {
    key.name = *prefix + random_text(random_, 5);
  }
  if (!rules::valid_name(key.name)) {
    return answers::status(422, "Invalid", "metadata.name: '" + key.name + "' is not a lower-case RFC 1123 subdomain");
  }
  if (type.objects.count(key) > 0) {
    return answers::status(409, "AlreadyExists", type.resource.plural + " \"" + key.name + "\" already exists");
  }
  for (const char* field : {"managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"})
    meta.erase(field);
  if (managers != nullptr) meta["managedFields"] = *managers;
  object["apiVersion"] = type.resource.api_version();
  object["kind"] = type.resource.kind;
  meta["name"] = key.name;
  if (!key.ns.empty()) meta["namespace"] = key.ns;
  meta["uid"] = random_uid(random_);
  meta["creationTimestamp"] = to_rfc3339(loop_.now());
  meta["generation"] = 1;
  // A node registers itself with its status (node strategy); of everything else the status is the controllers'.
  if (type.options.status_subresource && type.resource.kind != "Node") object.erase("status");
  if (type.pods()) object["status"] = {{"phase", "Pending"}};
  if (type.options.admission) {
    if (Status admitted = type.options.admission(nullptr, object); !admitted) return answers::refused(admitted.error());
  }
  if (dry_run(request)) return answers::object(Payload::of(std::move(object)), 201);
  const Payload created = store_.commit(type, key, std::move(object), {});
  return answers::object(created, 201);
}

Response Writes::update(Store::Type& type, const Request& request) {
  auto body = body_of(request);
  if (!body) return answers::bad_request(body.error().message);
  const auto found = type.objects.find(request.key);
  if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
  if (const std::string* name = text_at(*body, "metadata.name"); name == nullptr || *name != request.key.name) {
    return answers::bad_request("the name of the object does not match the name on the URL (" + request.key.name + ")");
  }
  if (auto refused = stale(type, request.key, *body, **found->second.json())) return *std::move(refused);
  return replace(type, request, found->second, *std::move(body));
}

Response Writes::apply(Store::Type& type, const Request& request) {
  auto config = body_of(request);
  if (!config) return answers::bad_request(config.error().message);
  const auto found = type.objects.find(request.key);
  const bool absent = found == type.objects.end();
  if (absent && !request.subresource.empty()) return answers::not_found(type.resource, request.key);
  auto applied = apply_config(
      absent ? Json() : **found->second.json(), *config,
      {request.parameter("fieldManager"), request.parameter("force") == "true", request.subresource, loop_.now()});
  if (!applied) {
    return applied.error().code == Code::kConflict ? answers::status(409, "Conflict", applied.error().message)
                                                   : answers::bad_request(applied.error().message);
  }
  const Json managers = (*applied)["metadata"]["managedFields"];
  if (absent) {
    Request creation = request;
    creation.verb = Verb::kCreate;
    (*applied)["metadata"]["name"] = request.key.name;
    creation.body = Payload::of(*std::move(applied));
    return create(type, creation, &managers);
  }
  if (auto refused = stale(type, request.key, *applied, **found->second.json())) return *std::move(refused);
  return replace(type, request, found->second, *std::move(applied), &managers);
}

Response Writes::patch(Store::Type& type, const Request& request) {
  if (request.patch == kube::PatchKind::kApply) return apply(type, request);
  const auto found = type.objects.find(request.key);
  if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
  auto operations = request.body.json();
  if (!operations) return answers::bad_request(operations.error().message);
  const Json& old = **found->second.json();
  auto patched = apply_patch(old, request.patch, **operations);
  if (!patched) return answers::status(422, "Invalid", patched.error().message);
  if (!patched->is_object() || !patched->contains("metadata") || !(*patched)["metadata"].is_object()) {
    return answers::status(422, "Invalid", "the patch leaves no object with metadata");
  }
  if (auto refused = stale(type, request.key, *patched, old)) return *std::move(refused);
  return replace(type, request, found->second, *std::move(patched));
}

Response Writes::replace(Store::Type& type, const Request& request, const Payload& stored, Json next,
                         const Json* managers) {
  const Json& old = **stored.json();
  if (request.subresource == "status") {
    next = rules::with_status(old, next);
  } else {
    if (Status prepared = rules::prepare_update(old, next, type.options.status_subresource); !prepared) {
      return answers::refused(prepared.error());
    }
    if (type.pods()) {
      if (Status allowed = rules::pod_update_allowed(old, next); !allowed) return answers::refused(allowed.error());
    }
    if (next != old && type.options.admission) {
      if (Status admitted = type.options.admission(&old, next); !admitted) return answers::refused(admitted.error());
    }
  }
  if (managers != nullptr) {
    next["metadata"]["managedFields"] = *managers;
  } else if (const std::string& manager = request.parameter("fieldManager");
             type.track_managers && !manager.empty() && next != old) {
    next["metadata"]["managedFields"] =
        managers_after_update(old, next, {manager, false, request.subresource, loop_.now()});
  }
  if (next == old) return answers::object(stored);
  if (dry_run(request)) return answers::object(Payload::of(std::move(next)));
  const int64_t grace = next["metadata"].value("deletionGracePeriodSeconds", int64_t{0});
  const bool last_finalizer = rules::being_deleted(next) && !rules::has_finalizers(next) && grace == 0;
  const Payload before = stored;
  const Payload after = store_.commit(type, request.key, std::move(next), before);
  if (last_finalizer) store_.erase(type, request.key);
  return answers::object(after);
}

Response Writes::bind(Store::Type& type, const Request& request) {
  const auto found = type.objects.find(request.key);
  if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
  auto body = body_of(request);
  if (!body) return answers::bad_request(body.error().message);
  const Json& old = **found->second.json();
  const std::string* node = text_at(*body, "target.name");
  if (node == nullptr || node->empty()) return answers::bad_request("target.name: the node to bind to is required");
  if (const std::string uid = rules::uid_of(*body); !uid.empty() && uid != rules::uid_of(old)) {
    return uid_conflict(type, request.key, uid, old);
  }
  if (rules::being_deleted(old)) return answers::conflict(type.resource, request.key, "the pod is being deleted");
  const std::string* bound = text_at(old, "spec.nodeName");
  if (bound != nullptr && !bound->empty()) {
    return answers::conflict(type.resource, request.key, "pod is already assigned to node \"" + *bound + "\"");
  }
  Json next = old;
  next["spec"]["nodeName"] = *node;
  Json conditions = Json::array();
  kube::fields::each(kube::fields::find(old, "status", "conditions"), [&](const Json& condition) {
    const std::string* kind = text_at(condition, "type");
    if (kind == nullptr || *kind != "PodScheduled") conditions.push_back(condition);
  });
  conditions.push_back({{"type", "PodScheduled"}, {"status", "True"}, {"lastTransitionTime", to_rfc3339(loop_.now())}});
  next["status"]["conditions"] = std::move(conditions);
  if (!dry_run(request)) store_.commit(type, request.key, std::move(next), Payload(found->second));
  return answers::status(201, "", "bound");
}

Response Writes::remove(Store::Type& type, const Request& request) {
  const auto found = type.objects.find(request.key);
  if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
  const Json& old = **found->second.json();
  const Json* options = nullptr;
  if (!request.body.empty()) {
    auto body = request.body.json();
    if (!body) return answers::bad_request(body.error().message);
    options = *body;
  }
  if (options != nullptr) {
    if (const std::string* uid = text_at(*options, "preconditions.uid"); uid != nullptr && *uid != rules::uid_of(old)) {
      return uid_conflict(type, request.key, *uid, old);
    }
    const std::string* version = text_at(*options, "preconditions.resourceVersion");
    if (version != nullptr && *version != rules::version_of(old)) return version_conflict(type, request.key);
    const std::string* propagation = text_at(*options, "propagationPolicy");
    if (propagation != nullptr && *propagation != "Background") {
      return answers::status(422, "Invalid",
                             "propagationPolicy: this server deletes dependents in the background only");
    }
  }
  if (dry_run(request)) return answers::object(found->second);
  const int64_t grace = type.pods() ? rules::pod_grace(old, options) : 0;
  if (grace == 0 && !rules::has_finalizers(old)) return answers::object(store_.erase(type, request.key));
  const bool again = rules::being_deleted(old);
  if (again && grace >= old["metadata"].value("deletionGracePeriodSeconds", int64_t{0}))
    return answers::object(found->second);
  Json next = old;
  next["metadata"]["deletionTimestamp"] = to_rfc3339(loop_.now() + seconds(grace));
  next["metadata"]["deletionGracePeriodSeconds"] = grace;
  if (!again) next["metadata"]["generation"] = next["metadata"].value("generation", int64_t{0}) + 1;
  return answers::object(store_.commit(type, request.key, std::move(next), Payload(found->second)));
}

void Writes::collect(const std::string& owner) {
  for (const auto& [number, key] : store_.owners().dependents_of(owner)) {
    Store::Type& type = store_.type(number);
    const auto found = type.objects.find(key);
    if (found == type.objects.end()) continue;
    const Json& object = **found->second.json();
    const auto owners = Owners::owners_of(object);
    const bool orphaned =
        std::none_of(owners.begin(), owners.end(), [&](const std::string& uid) { return store_.owners().alive(uid); });
    if (orphaned) {
      Json options = {{"preconditions", {{"uid", rules::uid_of(object)}}}};
      remove(type, {.verb = Verb::kDelete, .type = type.resource, .key = key, .body = Payload::of(std::move(options))});
      continue;
    }
    Json next = object;
    Json& references = next["metadata"]["ownerReferences"];
    for (auto entry = references.begin(); entry != references.end();) {
      const std::string* uid = text_at(*entry, "uid");
      entry = uid != nullptr && store_.owners().alive(*uid) ? std::next(entry) : references.erase(entry);
    }
    store_.commit(type, key, std::move(next), Payload(found->second));
  }
}

}  // namespace pitcrew::local
