#pragma once

#include <map>
#include <set>
#include <string>

#include "lib/base/clock.hpp"
#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

// What a reconcile has done that its cache has not shown yet: while any of it is outstanding, a difference computed
// from the cache would do it again. Pure, over a Clock.
class Expectations {
 public:
  enum class State {
    kSatisfied,
    kPending,  // wait for the watch
    kExpired,  // the watch never showed it: list live, then forget()
  };

  explicit Expectations(const Clock& clock, Duration expiry = minutes(5)) : clock_(clock), expiry_(expiry) {}

  // `what` is a name (of a create: it can't be known before) or a UID (of a delete).
  void expect(const ObjectKey& owner, const std::string& what);
  void observed(const ObjectKey& owner, const std::string& what);
  State state(const ObjectKey& owner) const;
  // After a live list, or when the owner is gone.
  void forget(const ObjectKey& owner) { expected_.erase(owner); }
  size_t owners() const { return expected_.size(); }

 private:
  const Clock& clock_;
  Duration expiry_;
  std::map<ObjectKey, std::map<std::string, Instant>> expected_;
};

// Read-your-writes: the highest version written per key. A cached object below it is stale, and a reconcile that reads
// it would decide on the past (KEP-5647).
class WrittenVersions {
 public:
  void wrote(const ObjectKey& key, const std::string& resource_version);
  // Whether a cache that has seen everything up to `cache_version` has seen this key's last write; forgets it then.
  bool seen(const ObjectKey& key, uint64_t cache_version);
  void forget(const ObjectKey& key) { written_.erase(key); }
  size_t keys() const { return written_.size(); }

 private:
  std::map<ObjectKey, uint64_t> written_;
};

}  // namespace pitcrew::kube
