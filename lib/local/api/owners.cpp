#include "lib/local/api/owners.hpp"

#include "lib/kube/types/fields.hpp"
#include "lib/local/api/selector.hpp"

namespace pitcrew::local {

std::vector<std::string> Owners::owners_of(const Json& body) {
  std::vector<std::string> uids;
  const Json* metadata = kube::fields::find(body, "metadata");
  if (metadata == nullptr) return uids;
  kube::fields::each(kube::fields::find(*metadata, "ownerReferences"), [&](const Json& owner) {
    std::string uid;
    kube::fields::read(owner, "uid", uid);
    if (!uid.empty()) uids.push_back(std::move(uid));
  });
  return uids;
}

void Owners::added(const Dependent& object, const Json& body) {
  if (const std::string* uid = text_at(body, "metadata.uid")) alive_.insert(*uid);
  for (const std::string& owner : owners_of(body)) dependents_[owner].insert(object);
}

void Owners::removed(const Dependent& object, const Json& body) {
  if (const std::string* uid = text_at(body, "metadata.uid")) alive_.erase(*uid);
  for (const std::string& owner : owners_of(body)) {
    const auto found = dependents_.find(owner);
    if (found == dependents_.end()) continue;
    found->second.erase(object);
    if (found->second.empty()) dependents_.erase(found);
  }
}

void Owners::changed(const Dependent& object, const Json& before, const Json& after) {
  const auto was = owners_of(before);
  const auto is = owners_of(after);
  if (was == is) return;
  for (const std::string& owner : was) {
    const auto found = dependents_.find(owner);
    if (found == dependents_.end()) continue;
    found->second.erase(object);
    if (found->second.empty()) dependents_.erase(found);
  }
  for (const std::string& owner : is) dependents_[owner].insert(object);
}

std::vector<Owners::Dependent> Owners::dependents_of(const std::string& uid) const {
  const auto found = dependents_.find(uid);
  if (found == dependents_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

}  // namespace pitcrew::local
