#include "lib/local/api/rules.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "lib/kube/types/fields.hpp"
#include "lib/local/api/selector.hpp"

namespace pitcrew::local::rules {
namespace {

using kube::fields::find;

// Metadata that only the server sets.
constexpr std::array<const char*, 8> kServerOwned{"name",
                                                  "namespace",
                                                  "uid",
                                                  "generation",
                                                  "creationTimestamp",
                                                  "deletionTimestamp",
                                                  "deletionGracePeriodSeconds",
                                                  "resourceVersion"};

bool desired(const std::string& field) {
  return field != "metadata" && field != "status" && field != "kind" && field != "apiVersion";
}

bool desired_state_differs(const Json& old, const Json& next) {
  for (auto field = next.begin(); field != next.end(); ++field) {
    if (!desired(field.key())) continue;
    const auto before = old.find(field.key());
    if (before == old.end() || *before != *field) return true;
  }
  for (auto field = old.begin(); field != old.end(); ++field) {
    if (desired(field.key()) && !next.contains(field.key())) return true;
  }
  return false;
}

}  // namespace

bool valid_name(const std::string& name) {
  if (name.empty() || name.size() > 253) return false;
  char before = '.';
  for (const char c : name) {
    const bool word = std::isdigit(static_cast<unsigned char>(c)) != 0 || (c >= 'a' && c <= 'z');
    if (!word && c != '-' && c != '.') return false;
    if (!word && (before == '.' || (c == '.' && before == '-'))) return false;
    before = c;
  }
  return before != '-' && before != '.';
}

Status prepare_update(const Json& old, Json& next, bool keep_status) {
  const Json& was = old["metadata"];
  Json& meta = next["metadata"];
  if (being_deleted(old)) {
    std::vector<std::string> before;
    std::vector<std::string> after;
    kube::fields::read(was, "finalizers", before);
    kube::fields::read(meta, "finalizers", after);
    for (const std::string& finalizer : after) {
      if (std::find(before.begin(), before.end(), finalizer) == before.end()) {
        return Error(Code::kInvalidArgument,
                     "metadata.finalizers: no new finalizers can be added if the object is being deleted");
      }
    }
  }
  for (const char* field : kServerOwned) {
    if (const auto value = was.find(field); value != was.end()) {
      meta[field] = *value;
    } else {
      meta.erase(field);
    }
  }
  // Applies are recorded, updates are not: whoever applied keeps what he applied.
  if (const auto managers = was.find("managedFields"); managers != was.end()) {
    meta["managedFields"] = *managers;
  } else {
    meta.erase("managedFields");
  }
  for (const char* list : {"finalizers", "ownerReferences"}) {
    if (const auto value = meta.find(list); value != meta.end() && value->empty()) meta.erase(value);
  }
  for (const char* field : {"apiVersion", "kind"}) next[field] = old[field];
  if (keep_status) {
    if (const auto status = old.find("status"); status != old.end()) {
      next["status"] = *status;
    } else {
      next.erase("status");
    }
  }
  if (desired_state_differs(old, next)) meta["generation"] = was.value("generation", int64_t{0}) + 1;
  return {};
}

Json with_status(const Json& old, const Json& next) {
  Json changed = old;
  if (const Json* status = find(next, "status")) {
    changed["status"] = *status;
  } else {
    changed.erase("status");
  }
  return changed;
}

Status pod_update_allowed(const Json& old, const Json& next) {
  const Json* before = find(old, "spec");
  const Json* after = find(next, "spec");
  if (before == nullptr || after == nullptr) return {};
  if (*before == *after) return {};
  Json a = *before;
  Json b = *after;
  for (const char* field : {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"}) {
    a.erase(field);
    b.erase(field);
  }
  if (a == b) return {};
  return Error(Code::kInvalidArgument,
               "spec: Forbidden: pod updates may not change fields other than activeDeadlineSeconds and tolerations");
}

int64_t pod_grace(const Json& pod, const Json* delete_options) {
  int64_t grace = 30;  // the API's default of terminationGracePeriodSeconds
  const Json* spec = find(pod, "spec");
  if (spec != nullptr) kube::fields::read(*spec, "terminationGracePeriodSeconds", grace);
  if (delete_options != nullptr) kube::fields::read(*delete_options, "gracePeriodSeconds", grace);
  // Nobody runs it (pod strategy CheckGracefulDelete).
  const std::string* node = text_at(pod, "spec.nodeName");
  const std::string* phase = text_at(pod, "status.phase");
  if (node == nullptr || node->empty()) return 0;
  if (phase != nullptr && (*phase == "Succeeded" || *phase == "Failed")) return 0;
  return std::max<int64_t>(grace, 0);
}

bool has_finalizers(const Json& object) {
  const Json* finalizers = find(object, "metadata", "finalizers");
  return finalizers != nullptr && finalizers->is_array() && !finalizers->empty();
}

bool being_deleted(const Json& object) { return find(object, "metadata", "deletionTimestamp") != nullptr; }

std::string uid_of(const Json& object) {
  const std::string* uid = text_at(object, "metadata.uid");
  return uid == nullptr ? "" : *uid;
}

std::string version_of(const Json& object) {
  const std::string* version = text_at(object, "metadata.resourceVersion");
  return version == nullptr ? "" : *version;
}

}  // namespace pitcrew::local::rules
