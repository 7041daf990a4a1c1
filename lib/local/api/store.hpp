#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "lib/local/api/api_server.hpp"
#include "lib/local/api/expiry.hpp"
#include "lib/local/api/owners.hpp"
#include "lib/local/api/watch_hub.hpp"

namespace pitcrew::local {

// What is stored: objects by type, each state under a version of its own, told to watches and observers.
class Store {
 public:
  struct Type {
    ResourceType resource;
    ApiServer::TypeOptions options;
    size_t number = 0;
    std::map<ObjectKey, kube::Payload> objects;
    uint64_t writes = 0;
    bool track_managers = false;
    std::unique_ptr<WatchHub> watches;
    std::unique_ptr<Expiry> expiry;  // null: its objects stay

    bool pods() const { return resource.plural == "pods" && resource.group.empty(); }
  };
  // An owner is dead that has dependents, or one was made for it.
  using OwnerIsGone = std::function<void(const std::string& uid)>;

  Store(Loop& loop, const ApiServerSettings& settings, OwnerIsGone owner_is_gone);

  void add(const ResourceType& resource, ApiServer::TypeOptions options);
  Type* find(const ResourceType& resource);
  Type& type(size_t number) { return types_[number]; }
  const std::deque<Type>& types() const { return types_; }
  std::deque<Type>& types() { return types_; }
  const Owners& owners() const { return owners_; }
  uint64_t version() const { return version_; }
  uint64_t writes() const { return writes_; }
  void add_observer(ApiServer::Observer observer) { observers_.push_back(std::move(observer)); }

  // Stores a new state under the next version and tells everybody.
  kube::Payload commit(Type& type, const ObjectKey& key, Json object, const kube::Payload& old);
  // Removes an object; its last state carries the version of its end.
  kube::Payload erase(Type& type, const ObjectKey& key);

  Json snapshot() const;
  Status restore(const Json& snapshot);

 private:
  // The end of an object whose time is over; nobody's write.
  void expire(Type& type, const ObjectKey& key, const std::string& version);
  kube::Payload take_out(Type& type, const ObjectKey& key);
  void count_write(Type& type);
  void tell(Type& type, const ObjectKey& key, kube::WatchEventType kind, const kube::Payload& body,
            const kube::Payload& old);
  void check_owners(const Json& object);

  Loop& loop_;
  const ApiServerSettings& settings_;
  OwnerIsGone owner_is_gone_;
  uint64_t version_ = 1;
  uint64_t writes_ = 0;
  std::deque<Type> types_;
  std::vector<ApiServer::Observer> observers_;
  Owners owners_;
};

}  // namespace pitcrew::local
