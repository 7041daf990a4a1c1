#include "lib/kube/runtime/expectations.hpp"

#include <algorithm>

#include "lib/kube/watch/watcher.hpp"

namespace pitcrew::kube {

void Expectations::expect(const ObjectKey& owner, const std::string& what) { expected_[owner][what] = clock_.now(); }

void Expectations::observed(const ObjectKey& owner, const std::string& what) {
  const auto found = expected_.find(owner);
  if (found == expected_.end()) return;
  found->second.erase(what);
  if (found->second.empty()) expected_.erase(found);
}

Expectations::State Expectations::state(const ObjectKey& owner) const {
  const auto found = expected_.find(owner);
  if (found == expected_.end()) return State::kSatisfied;
  const Instant now = clock_.now();
  for (const auto& [what, since] : found->second) {
    if (now - since >= expiry_) return State::kExpired;
  }
  return State::kPending;
}

void WrittenVersions::wrote(const ObjectKey& key, const std::string& resource_version) {
  const auto version = resource_version_number(resource_version);
  if (!version) return;
  uint64_t& known = written_[key];
  known = std::max(known, *version);
}

bool WrittenVersions::seen(const ObjectKey& key, uint64_t cache_version) {
  const auto found = written_.find(key);
  if (found == written_.end()) return true;
  if (found->second > cache_version) return false;
  written_.erase(found);
  return true;
}

}  // namespace pitcrew::kube
