#pragma once

#include <string>

#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

// policy/v1 PodDisruptionBudget, as far as whoever keeps one has to know: that it is there, and what it holds back.
struct DisruptionBudget {
  ObjectMeta metadata;
  std::string min_available;  // "3", "50%"; empty: by max_unavailable
  std::string max_unavailable;
  std::string unhealthy_eviction;  // AlwaysAllow, IfHealthyBudget; empty: the API's default
  bool operator==(const DisruptionBudget&) const = default;

  static const ResourceType& type();
  static Result<DisruptionBudget> decode(const Json& json);
};

}  // namespace pitcrew::kube
