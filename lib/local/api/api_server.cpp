#include "lib/local/api/api_server.hpp"

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>

#include "lib/base/random.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/answers.hpp"
#include "lib/local/api/apply.hpp"
#include "lib/local/api/owners.hpp"
#include "lib/local/api/patch.hpp"
#include "lib/local/api/rules.hpp"
#include "lib/local/api/selector.hpp"
#include "lib/local/api/tokens.hpp"
#include "lib/local/api/watch_hub.hpp"

namespace pitcrew::local {

using kube::Payload;
using kube::Request;
using kube::Response;
using kube::Verb;
using kube::WatchEventType;

namespace {

std::optional<uint64_t> number(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

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

bool dry_run(const Request& request) { return request.parameter("dryRun") == "All"; }

Response too_large_version(uint64_t asked, uint64_t current) {
  Json body = answers::status_json(
      504, "Timeout", "Too large resource version: " + std::to_string(asked) + ", current: " + std::to_string(current));
  body["details"] = {
      {"retryAfterSeconds", 1},
      {"causes", Json::array({{{"reason", "ResourceVersionTooLarge"}, {"message", "Too large resource version"}}})}};
  return {.status = 504, .body = Payload::of(std::move(body)), .retry_after = seconds(1)};
}

}  // namespace

class ApiServer::Impl {
 public:
  struct Type {
    ResourceType resource;
    TypeOptions options;
    size_t number = 0;
    std::map<ObjectKey, Payload> objects;
    uint64_t writes = 0;
    bool track_managers = false;
    std::unique_ptr<WatchHub> watches;
  };

  Impl(Loop& loop, ApiServerSettings settings)
      : loop_(loop),
        settings_(std::move(settings)),
        random_(settings_.seed),
        tokens_(settings_.token_source ? settings_.token_source : [this] { return random_text(random_, 40); }) {
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
  }

  void add(const ResourceType& resource, TypeOptions options) {
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

  Type* find(const ResourceType& resource) {
    for (Type& type : types_) {
      if (type.resource.plural == resource.plural && type.resource.group == resource.group) return &type;
    }
    return nullptr;
  }

  Response handle(const Request& request) {
    ++requests_;
    Type* type = find(request.type);
    if (type == nullptr) return no_such_type(request);
    if (type->resource.kind == "TokenReview") return review(request);
    const bool known_subresource = request.subresource.empty() ||
                                   (request.subresource == "status" && type->options.status_subresource) ||
                                   (request.subresource == "binding" && is_pods(*type));
    if (!known_subresource) {
      return answers::status(404, "NotFound", "the server could not find the requested resource");
    }
    switch (request.verb) {
      case Verb::kGet:
        return get(*type, request);
      case Verb::kList:
        return list(*type, request);
      case Verb::kWatch:
        return answers::bad_request("a watch is a stream; open it with watch()");
      case Verb::kCreate:
        return request.subresource == "binding" ? bind(*type, request) : create(*type, request);
      case Verb::kUpdate:
        return update(*type, request);
      case Verb::kPatch:
        return patch(*type, request);
      case Verb::kDelete:
        return remove(*type, request);
    }
    return answers::bad_request("unknown verb");
  }

  Result<kube::CallPtr> watch(const Request& request, kube::Transport::WatchSink sink);

  Json snapshot() const {
    Json objects = Json::array();
    for (const Type& type : types_) {
      for (const auto& [key, body] : type.objects) objects.push_back(**body.json());
    }
    return {{"format", 1}, {"resourceVersion", std::to_string(version_)}, {"objects", std::move(objects)}};
  }
  Status restore(const Json& snapshot);

  std::string issue_token(const std::string& audience, const ObjectKey& pod, const std::string& pod_uid,
                          Duration lifetime) {
    Tokens::Grant grant{audience, pod, pod_uid, "default", loop_.now() + lifetime};
    Type& pods = *find(kube::Pod::type());
    if (const auto found = pods.objects.find(pod); found != pods.objects.end()) {
      if (const std::string* account = text_at(**found->second.json(), "spec.serviceAccountName")) {
        grant.service_account = *account;
      }
    }
    return tokens_.issue(std::move(grant), loop_.now());
  }

  Loop& loop_;
  ApiServerSettings settings_;
  Random random_;
  Tokens tokens_;
  uint64_t version_ = 1;
  uint64_t requests_ = 0;
  uint64_t writes_ = 0;
  std::deque<Type> types_;
  std::vector<Observer> observers_;

 private:
  // A list that is handed out in pages, all of one moment.
  struct Pages {
    std::vector<Payload> items;
    uint64_t version = 0;
    Instant expires;
  };

  static bool is_pods(const Type& type) { return type.resource.plural == "pods" && type.resource.group.empty(); }

  static Response no_such_type(const Request& request) {
    return answers::status(
        404, "NotFound",
        "the server could not find the requested resource (" + request.type.plural + "." + request.type.group + ")");
  }

  Response get(Type& type, const Request& request) {
    const auto found = type.objects.find(request.key);
    if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
    return answers::object(found->second);
  }

  // Objects of a namespace, or all.
  template <typename F>
  static void in_namespace(const Type& type, const std::string& ns, F&& f) {
    auto entry = ns.empty() ? type.objects.begin() : type.objects.lower_bound(ObjectKey{ns, ""});
    for (; entry != type.objects.end() && (ns.empty() || entry->first.ns == ns); ++entry) f(entry->second);
  }

  Result<WatchHub::Interest> interest(const Request& request) {
    WatchHub::Interest interest;
    interest.ns = request.key.ns;
    PITCREW_ASSIGN(interest.labels, Selector::labels(request.parameter("labelSelector")));
    PITCREW_ASSIGN(interest.fields, Selector::fields(request.parameter("fieldSelector")));
    return interest;
  }

  std::vector<Payload> matching(const Type& type, const WatchHub::Interest& interest) {
    std::vector<Payload> items;
    in_namespace(type, interest.ns, [&](const Payload& body) {
      if (interest.labels.matches_labels(**body.json()) && interest.fields.matches_fields(**body.json()))
        items.push_back(body);
    });
    return items;
  }

  Response list(Type& type, const Request& request) {
    auto wanted = interest(request);
    if (!wanted) return answers::bad_request(wanted.error().message);
    const auto version = number(request.parameter("resourceVersion"));
    if (version && *version > version_) return too_large_version(*version, version_);
    const uint64_t limit = number(request.parameter("limit")).value_or(0);
    const std::string& token = request.parameter("continue");
    if (!token.empty()) return next_page(type, token, limit);
    Pages pages{matching(type, *wanted), version_, loop_.now() + settings_.continue_lifetime};
    if (limit == 0 || pages.items.size() <= limit) return page(type, std::move(pages.items), version_, "");
    const uint64_t id = ++next_pages_;
    drop_expired_pages();
    return page_of(type, id, pages_.emplace(id, std::move(pages)).first->second, 0, limit);
  }

  // A token is <list>.<offset>; it may be used again, since an answer can be lost.
  Response next_page(Type& type, const std::string& token, uint64_t limit) {
    const size_t dot = token.find('.');
    const auto id = number(token.substr(0, dot));
    const auto offset = dot == token.npos ? std::nullopt : number(token.substr(dot + 1));
    if (!id || !offset) return answers::bad_request("continue key is not valid");
    drop_expired_pages();
    const auto found = pages_.find(*id);
    if (found == pages_.end() || *offset > found->second.items.size()) {
      return answers::status(410, "Expired",
                             "The provided continue parameter is too old to display a consistent list result. "
                             "You can start a new list without the continue parameter.");
    }
    return page_of(type, *id, found->second, *offset, limit == 0 ? found->second.items.size() : limit);
  }

  Response page_of(Type& type, uint64_t id, const Pages& pages, uint64_t offset, uint64_t limit) {
    const uint64_t end = std::min<uint64_t>(pages.items.size(), offset + limit);
    const bool last = end == pages.items.size();
    return page(
        type, {pages.items.begin() + static_cast<ptrdiff_t>(offset), pages.items.begin() + static_cast<ptrdiff_t>(end)},
        pages.version, last ? "" : std::to_string(id) + "." + std::to_string(end));
  }

  static Response page(Type& type, std::vector<Payload> items, uint64_t version, const std::string& token) {
    Json body = {{"kind", type.resource.kind + "List"},
                 {"apiVersion", type.resource.api_version()},
                 {"metadata", {{"resourceVersion", std::to_string(version)}}}};
    if (!token.empty()) body["metadata"]["continue"] = token;
    return {.body = Payload::of(std::move(body)), .items = std::move(items)};
  }

  void drop_expired_pages() {
    while (!pages_.empty() && pages_.begin()->second.expires <= loop_.now()) pages_.erase(pages_.begin());
  }

 public:
  void drop_pages() { pages_.clear(); }

 private:
  Result<Json> body_of(const Request& request) {
    Payload body = request.body;
    auto json = std::move(body).take();
    if (!json) return json.error();
    if (!json->is_object()) return Error(Code::kInvalidArgument, "the body must be an object");
    return json;
  }

  // `managers`: metadata.managedFields of an apply.
  Response create(Type& type, const Request& request, const Json* managers = nullptr) {
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
      return answers::status(422, "Invalid",
                             "metadata.name: '" + key.name + "' is not a lower-case RFC 1123 subdomain");
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
    if (is_pods(type)) object["status"] = {{"phase", "Pending"}};
    if (type.options.admission) {
      if (Status admitted = type.options.admission(nullptr, object); !admitted)
        return answers::refused(admitted.error());
    }
    if (dry_run(request)) return answers::object(Payload::of(std::move(object)), 201);
    const Payload created = commit(type, key, std::move(object), {});
    for (const std::string& owner : Owners::owners_of(**created.json())) {
      if (!owners_.alive(owner)) collect_later(owner);
    }
    return answers::object(created, 201);
  }

  // Nothing where `object` may be written over what is stored as `old`.
  std::optional<Response> stale(const Type& type, const ObjectKey& key, const Json& object, const Json& old) {
    const std::string uid = rules::uid_of(object);
    if (!uid.empty() && uid != rules::uid_of(old)) return uid_conflict(type, key, uid, old);
    const std::string version = rules::version_of(object);
    if (!version.empty() && version != rules::version_of(old)) return version_conflict(type, key);
    return std::nullopt;
  }

  static Response uid_conflict(const Type& type, const ObjectKey& key, const std::string& uid, const Json& old) {
    return answers::conflict(
        type.resource, key,
        "Precondition failed: UID in precondition: " + uid + ", UID in object meta: " + rules::uid_of(old));
  }
  static Response version_conflict(const Type& type, const ObjectKey& key) {
    return answers::conflict(
        type.resource, key,
        "the object has been modified; please apply your changes to the latest version and try again");
  }

  Response update(Type& type, const Request& request) {
    auto body = body_of(request);
    if (!body) return answers::bad_request(body.error().message);
    const auto found = type.objects.find(request.key);
    if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
    if (const std::string* name = text_at(*body, "metadata.name"); name == nullptr || *name != request.key.name) {
      return answers::bad_request("the name of the object does not match the name on the URL (" + request.key.name +
                                  ")");
    }
    if (auto refused = stale(type, request.key, *body, **found->second.json())) return *std::move(refused);
    return replace(type, request, found->second, *std::move(body));
  }

  Response apply(Type& type, const Request& request) {
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

  Response patch(Type& type, const Request& request) {
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

  // The end of every update: what the caller may change is taken over, and committed if anything differs.
  Response replace(Type& type, const Request& request, const Payload& stored, Json next,
                   const Json* managers = nullptr) {
    const Json& old = **stored.json();
    if (request.subresource == "status") {
      next = rules::with_status(old, next);
    } else {
      if (Status prepared = rules::prepare_update(old, next, type.options.status_subresource); !prepared) {
        return answers::refused(prepared.error());
      }
      if (is_pods(type)) {
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
    const Payload after = commit(type, request.key, std::move(next), before);
    if (last_finalizer) erase(type, request.key);
    return answers::object(after);
  }

  Response bind(Type& type, const Request& request) {
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
    conditions.push_back(
        {{"type", "PodScheduled"}, {"status", "True"}, {"lastTransitionTime", to_rfc3339(loop_.now())}});
    next["status"]["conditions"] = std::move(conditions);
    if (!dry_run(request)) commit(type, request.key, std::move(next), Payload(found->second));
    return answers::status(201, "", "bound");
  }

  Response remove(Type& type, const Request& request) {
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
      if (const std::string* uid = text_at(*options, "preconditions.uid");
          uid != nullptr && *uid != rules::uid_of(old)) {
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
    const int64_t grace = is_pods(type) ? rules::pod_grace(old, options) : 0;
    if (grace == 0 && !rules::has_finalizers(old)) return answers::object(erase(type, request.key));
    const bool again = rules::being_deleted(old);
    if (again && grace >= old["metadata"].value("deletionGracePeriodSeconds", int64_t{0}))
      return answers::object(found->second);
    Json next = old;
    next["metadata"]["deletionTimestamp"] = to_rfc3339(loop_.now() + seconds(grace));
    next["metadata"]["deletionGracePeriodSeconds"] = grace;
    if (!again) next["metadata"]["generation"] = next["metadata"].value("generation", int64_t{0}) + 1;
    return answers::object(commit(type, request.key, std::move(next), Payload(found->second)));
  }

  Response review(const Request& request) {
    if (request.verb != Verb::kCreate)
      return answers::status(405, "MethodNotAllowed", "a TokenReview can only be created");
    auto body = body_of(request);
    if (!body) return answers::bad_request(body.error().message);
    const Type& pods = *find(kube::Pod::type());
    const auto pod_uid = [&](const ObjectKey& key) {
      const auto found = pods.objects.find(key);
      return found == pods.objects.end() ? std::string() : rules::uid_of(**found->second.json());
    };
    static const Json kNone = Json::object();
    const Json* spec = kube::fields::find(*body, "spec");
    Json status = tokens_.review(spec == nullptr ? kNone : *spec, pod_uid, loop_.now());
    (*body)["status"] = std::move(status);
    return answers::object(Payload::of(*std::move(body)), 201);
  }

  // Stores a new state under the next version and tells everybody.
  Payload commit(Type& type, const ObjectKey& key, Json object, const Payload& old) {
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    Payload body = Payload::of(std::move(object));
    type.objects[key] = body;
    const Owners::Dependent self{type.number, key};
    if (old.empty()) {
      owners_.added(self, **body.json());
    } else {
      owners_.changed(self, **old.json(), **body.json());
    }
    tell(type, key, old.empty() ? WatchEventType::kAdded : WatchEventType::kModified, body, old);
    return body;
  }

  // Removes an object; its last state carries the version of its end.
  Payload erase(Type& type, const ObjectKey& key) {
    const auto found = type.objects.find(key);
    const Payload old = found->second;
    Json last = **old.json();
    last["metadata"]["resourceVersion"] = std::to_string(++version_);
    const Payload body = Payload::of(std::move(last));
    type.objects.erase(found);
    owners_.removed({type.number, key}, **old.json());
    tell(type, key, WatchEventType::kDeleted, body, old);
    const std::string uid = rules::uid_of(**old.json());
    if (!owners_.dependents_of(uid).empty()) collect_later(uid);
    return body;
  }

  void tell(Type& type, const ObjectKey& key, WatchEventType kind, const Payload& body, const Payload& old) {
    ++type.writes;
    ++writes_;
    for (const Observer& observer : observers_) observer({kind, type.resource, key, version_, body, old});
    type.watches->publish({kind, version_, body, old});
  }

  void collect_later(const std::string& owner) {
    timers_.push_back(loop_.after(settings_.gc_delay, [this, owner] {
      collect(owner);
      timers_.pop_front();  // this one: they all wait equally long
    }));
  }

  // Deletes what the dead owner owned alone, and takes its name off what has a living owner besides.
  void collect(const std::string& owner) {
    for (const auto& [number, key] : owners_.dependents_of(owner)) {
      Type& type = types_[number];
      const auto found = type.objects.find(key);
      if (found == type.objects.end()) continue;
      const Json& object = **found->second.json();
      const auto owners = Owners::owners_of(object);
      const bool orphaned =
          std::none_of(owners.begin(), owners.end(), [&](const std::string& uid) { return owners_.alive(uid); });
      if (orphaned) {
        Json options = {{"preconditions", {{"uid", rules::uid_of(object)}}}};
        remove(type,
               {.verb = Verb::kDelete, .type = type.resource, .key = key, .body = Payload::of(std::move(options))});
        continue;
      }
      Json next = object;
      Json& references = next["metadata"]["ownerReferences"];
      for (auto entry = references.begin(); entry != references.end();) {
        const std::string* uid = text_at(*entry, "uid");
        entry = uid != nullptr && owners_.alive(*uid) ? std::next(entry) : references.erase(entry);
      }
      commit(type, key, std::move(next), Payload(found->second));
    }
  }

  Owners owners_;
  std::map<uint64_t, Pages> pages_;
  uint64_t next_pages_ = 0;
  std::deque<Loop::TimerPtr> timers_;
};

Result<kube::CallPtr> ApiServer::Impl::watch(const Request& request, kube::Transport::WatchSink sink) {
  ++requests_;
  Type* type = find(request.type);
  if (type == nullptr) return *kube::error_of(request, no_such_type(request));
  auto wanted = interest(request);
  if (!wanted) return wanted.error();
  if (!request.key.name.empty())
    return Error(Code::kInvalidArgument, "watch one object by fieldSelector=metadata.name=…");
  wanted->bookmarks = request.parameter("allowWatchBookmarks") == "true";
  const auto timeout = number(request.parameter("timeoutSeconds"));
  wanted->timeout = timeout ? Duration(seconds(*timeout)) : settings_.watch_timeout;
  const std::string& version = request.parameter("resourceVersion");
  const bool initial = request.parameter("sendInitialEvents") == "true";
  if (version.empty() || version == "0" || initial) {
    const std::vector<Payload> items = matching(*type, *wanted);
    return type->watches->open(items, initial, *std::move(wanted), std::move(sink));
  }
  const auto since = number(version);
  if (!since) return Error(Code::kInvalidArgument, "resourceVersion: '" + version + "' is not a number");
  if (*since > version_) return *kube::error_of(request, too_large_version(*since, version_));
  kube::CallPtr call;
  if (type->watches->open(*since, call, *std::move(wanted), sink)) return call;
  const std::string message = "too old resource version: " + version + " (" + std::to_string(version_) + ")";
  if (settings_.gone_as_status) return *kube::error_of(request, answers::status(410, "Expired", message));
  sink.on_event({WatchEventType::kError, Payload::of(answers::status_json(410, "Expired", message))});
  sink.on_end({});
  return call;
}

Status ApiServer::Impl::restore(const Json& snapshot) {
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
    type->objects[key] = std::move(body);
  }
  for (Type& type : types_) type.watches->compact();
  for (const auto& [type, key, body] : found) {
    for (const std::string& owner : Owners::owners_of(**type->objects[key].json())) {
      if (!owners_.alive(owner)) collect_later(owner);
    }
  }
  return {};
}

ApiServer::ApiServer(Loop& loop, ApiServerSettings settings)
    : impl_(std::make_unique<Impl>(loop, std::move(settings))) {}
ApiServer::~ApiServer() = default;

void ApiServer::register_type(const ResourceType& type, TypeOptions options) { impl_->add(type, std::move(options)); }

void ApiServer::set_admission(const ResourceType& type, Admission admission) {
  Impl::Type* known = impl_->find(type);
  PITCREW_INVARIANT(known != nullptr, "admission for a type that is not registered: " + type.plural);
  known->options.admission = std::move(admission);
}

void ApiServer::track_managers(const ResourceType& type) {
  Impl::Type* known = impl_->find(type);
  PITCREW_INVARIANT(known != nullptr, "managers of a type that is not registered: " + type.plural);
  known->track_managers = true;
}

void ApiServer::add_observer(Observer observer) { impl_->observers_.push_back(std::move(observer)); }
Response ApiServer::handle(const Request& request) { return impl_->handle(request); }

Result<kube::CallPtr> ApiServer::watch(const Request& request, kube::Transport::WatchSink sink) {
  return impl_->watch(request, std::move(sink));
}

uint64_t ApiServer::resource_version() const { return impl_->version_; }

Payload ApiServer::find(const ResourceType& type, const ObjectKey& key) const {
  const Impl::Type* known = impl_->find(type);
  if (known == nullptr) return {};
  const auto found = known->objects.find(key);
  return found == known->objects.end() ? Payload() : found->second;
}

void ApiServer::for_each(const ResourceType& type, const std::function<void(const Payload&)>& f) const {
  const Impl::Type* known = impl_->find(type);
  if (known == nullptr) return;
  for (const auto& [key, body] : known->objects) f(body);
}

size_t ApiServer::count(const ResourceType& type) const {
  const Impl::Type* known = impl_->find(type);
  return known == nullptr ? 0 : known->objects.size();
}

uint64_t ApiServer::writes(const ResourceType& type) const {
  const Impl::Type* known = impl_->find(type);
  return known == nullptr ? 0 : known->writes;
}

uint64_t ApiServer::writes() const { return impl_->writes_; }
uint64_t ApiServer::requests() const { return impl_->requests_; }

size_t ApiServer::watches() const {
  size_t count = 0;
  for (const Impl::Type& type : impl_->types_) count += type.watches->size();
  return count;
}

void ApiServer::compact() {
  impl_->drop_pages();
  for (Impl::Type& type : impl_->types_) type.watches->compact();
}

void ApiServer::close_watches() {
  for (Impl::Type& type : impl_->types_) type.watches->close_all();
}

std::string ApiServer::issue_token(const std::string& audience, const ObjectKey& pod, const std::string& pod_uid,
                                   Duration lifetime) {
  return impl_->issue_token(audience, pod, pod_uid, lifetime);
}

Json ApiServer::snapshot() const { return impl_->snapshot(); }
Status ApiServer::restore(const Json& snapshot) { return impl_->restore(snapshot); }

}  // namespace pitcrew::local
