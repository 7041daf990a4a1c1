#pragma once

#include <string>

#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

// coordination.k8s.io/v1 Lease: who leads, or that a node is alive.
struct Lease {
  ObjectMeta metadata;
  std::string holder;
  int64_t duration_seconds = 0;
  int64_t transitions = 0;  // how often the holder changed: a leader's term
  std::optional<Instant> acquired;
  std::optional<Instant> renewed;
  bool operator==(const Lease&) const = default;

  static const ResourceType& type();
  static Result<Lease> decode(const Json& json);
  Json encode() const;
};

}  // namespace pitcrew::kube
