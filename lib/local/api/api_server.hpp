#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/loop.hpp"
#include "lib/kube/transport/transport.hpp"

namespace pitcrew::local {

struct ApiServerSettings {
  uint64_t seed = 1;      // of UIDs and generated names
  size_t history = 4096;  // events kept per type for watches that start in the past
  Duration bookmark_every = seconds(60);
  Duration watch_timeout = minutes(30);  // where a watch names none
  Duration continue_lifetime = minutes(5);
  Duration gc_delay{0};                // from an owner's end to its dependents'
  Duration event_lifetime = hours(1);  // from an Event's last write to its end (kube-apiserver --event-ttl)
  bool gone_as_status = false;         // a watch from a lost version: HTTP 410 instead of an ERROR event
  // Unguessable text for service-account tokens; unset: from the seed, which is for simulations alone.
  std::function<std::string()> token_source;
};

// A change that was committed, for observers: invariants are checked, objects are saved.
struct Change {
  kube::WatchEventType type;  // kAdded, kModified, kDeleted
  const ResourceType& resource;
  ObjectKey key;
  uint64_t resource_version = 0;
  kube::Payload object;  // as it is now; of kDeleted, as it was
  kube::Payload old;     // empty for kAdded
};

// A Kubernetes API server in memory: storage with resource versions, generations and UIDs, optimistic concurrency, the
// status subresource, selectors, paging, watches with bookmarks and expiry, Events' time to live, graceful deletion of
// pods, finalizers, owner garbage collection, bindings, and service-account tokens. `pitcrew run` and the simulation
// stand on it.
//
// Lives on a Loop; time comes from it. Requests are answered at once; MemoryTransport puts it behind the loop.
// Registered from the start: pods, nodes, leases, events, secrets, configmaps, services, priorityclasses,
// poddisruptionbudgets, serviceaccounts, resourcequotas, endpointslices, tokenreviews.
class ApiServer {
 public:
  // Changes the object (defaults) or refuses it. `old` is null for a create. Not called for status updates and deletes.
  using Admission = std::function<Status(const Json* old, Json& object)>;
  using Observer = std::function<void(const Change&)>;

  ApiServer(Loop& loop, ApiServerSettings settings = {});
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  struct TypeOptions {
    bool status_subresource = true;
    Admission admission;
  };
  void register_type(const ResourceType& type, TypeOptions options);
  void set_admission(const ResourceType& type, Admission admission);
  // From now on updates and patches that name a fieldManager are recorded in metadata.managedFields, as applies always
  // are. Costs each of them a comparison of the whole object.
  void track_managers(const ResourceType& type);
  // Called after each commit, before any watch is told; must not call back into the server.
  void add_observer(Observer observer);

  // Any verb but a watch.
  kube::Response handle(const kube::Request& request);

  // A watch; its sink is called inside handle() (and from the loop for bookmarks and the end), until the result is
  // destroyed. An answer other than 200 is the error.
  Result<kube::CallPtr> watch(const kube::Request& request, kube::Transport::WatchSink sink);

  // ---- for tests, the kubelet and the simulation's invariants ----
  uint64_t resource_version() const;
  kube::Payload find(const ResourceType& type, const ObjectKey& key) const;  // empty where there is none
  void for_each(const ResourceType& type, const std::function<void(const kube::Payload&)>& f) const;
  size_t count(const ResourceType& type) const;
  // Commits so far: of one type, or of all; the end of an Event's time is none. What "a quiet world makes no writes" is
  // measured by.
  uint64_t writes(const ResourceType& type) const;
  uint64_t writes() const;
  uint64_t requests() const;
  size_t watches() const;
  // Forgets all history: watches and lists from an older version get 410. Open watches go on.
  void compact();
  // Ends every open watch, as a restart of the server would.
  void close_watches();

  // A token of a pod's service account, as the kubelet projects it; TokenReview knows it until it expires, the pod is
  // gone or its UID differs.
  std::string issue_token(const std::string& audience, const ObjectKey& pod, const std::string& pod_uid,
                          Duration lifetime);

  // Every object with its UID and version; restore() fills an empty server with it, and versions grow on from there.
  Json snapshot() const;
  Status restore(const Json& snapshot);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pitcrew::local
