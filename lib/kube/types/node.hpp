#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/json_selection.hpp"
#include "lib/base/object_meta.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::kube {

struct Taint {
  std::string key;
  std::string value;
  std::string effect;  // NoSchedule, PreferNoSchedule, NoExecute
  bool operator==(const Taint&) const = default;
};

struct NodeCondition {
  std::string type;    // Ready, MemoryPressure, PitcrewHealthy …
  std::string status;  // True, False, Unknown
  std::string reason;
  std::string message;
  Instant last_transition;
  bool operator==(const NodeCondition&) const = default;
};

struct Node {
  ObjectMeta metadata;
  std::string provider_id;
  bool unschedulable = false;
  std::vector<Taint> taints;
  Resources allocatable;
  std::vector<NodeCondition> conditions;
  std::string internal_ip;

  // Ready is True. A node whose kubelet has gone silent is Unknown, so not ready.
  bool ready() const;
  bool operator==(const Node&) const = default;

  static const ResourceType& type();
  static Result<Node> decode(const Json& json);
  static const JsonSelection& selection();  // what decode() reads
  Json encode() const;
};

}  // namespace pitcrew::kube
