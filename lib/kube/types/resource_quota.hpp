#pragma once

#include <string>
#include <vector>

#include "lib/base/object_meta.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::kube {

// v1 ResourceQuota: what a namespace may use and does use, as the quota controller has counted it.
struct ResourceQuota {
  ObjectMeta metadata;
  std::vector<std::string> scopes;  // Terminating, BestEffort … ; empty: all pods
  bool scope_selector = false;      // it counts only some pods, by a selector of priority classes and the like
  Resources hard;                   // "requests.cpu", "pods", "requests.nvidia.com/gpu" …
  Resources used;
  bool operator==(const ResourceQuota&) const = default;

  static const ResourceType& type();
  static Result<ResourceQuota> decode(const Json& json);
};

}  // namespace pitcrew::kube
