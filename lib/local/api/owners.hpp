#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lib/base/object_meta.hpp"

namespace pitcrew::local {

// Which objects live, by UID, and which objects name them as owners: what garbage collection asks. Pure.
class Owners {
 public:
  // An object of the type that a server counts as number `type`.
  using Dependent = std::pair<size_t, ObjectKey>;

  void added(const Dependent& object, const Json& body);
  void removed(const Dependent& object, const Json& body);
  void changed(const Dependent& object, const Json& before, const Json& after);

  bool alive(const std::string& uid) const { return alive_.count(uid) > 0; }
  std::vector<Dependent> dependents_of(const std::string& uid) const;

  static std::vector<std::string> owners_of(const Json& body);

 private:
  std::unordered_set<std::string> alive_;
  std::map<std::string, std::set<Dependent>> dependents_;
};

}  // namespace pitcrew::local
