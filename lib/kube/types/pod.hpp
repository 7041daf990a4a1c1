#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/json_selection.hpp"
#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

// Amounts of resources by name ("cpu", "memory", "nvidia.com/gpu"), in thousandths of the unit: 1500 is 1.5 CPUs;
// memory is in thousandths of a byte.
using Resources = std::map<std::string, int64_t>;
// "1500m", "16Gi", "8" and so on.
Result<int64_t> parse_quantity(std::string_view text);

struct Toleration {
  std::string key;        // empty with Exists: all
  std::string operation;  // Exists or Equal
  std::string value;
  std::string effect;  // empty: all
  bool operator==(const Toleration&) const = default;
};

enum class PodPhase { kPending, kRunning, kSucceeded, kFailed, kUnknown };
std::string_view to_string(PodPhase phase);

struct Termination {
  int exit_code = 0;
  int signal = 0;
  std::string reason;  // OOMKilled, Error, Completed
  std::string message;
  std::optional<Instant> finished;
  bool operator==(const Termination&) const = default;
};

struct ContainerStatus {
  std::string name;
  bool running = false;
  bool ready = false;
  int restarts = 0;
  std::string waiting_reason;  // ImagePullBackOff, CrashLoopBackOff …
  std::string waiting_message;
  std::optional<Termination> terminated;       // how it ended, where it has
  std::optional<Termination> last_terminated;  // how the one before this one ended
  std::optional<Instant> started;              // when the one that runs began
  bool operator==(const ContainerStatus&) const = default;
};

// A pod as the operator sees it: what it decides by, never the whole object. Creating one sends the JSON that the
// operator built from the job's template, so nothing of a template is lost by this type.
struct Pod {
  ObjectMeta metadata;
  // spec
  std::string node_name;  // empty: not bound
  std::map<std::string, std::string> node_selector;
  std::vector<Toleration> tolerations;
  std::string required_node;  // by required affinity to metadata.name, as the operator pins
  Resources requests;         // all containers' together, as the scheduler counts them
  std::string priority_class;
  // status
  PodPhase phase = PodPhase::kPending;
  std::string reason;
  std::string message;
  std::string host_ip;
  std::string pod_ip;
  std::optional<Instant> start_time;
  // Init containers that are not through, in their order: the first is what all that follow wait for. One is through
  // when it has ended well, a sidecar (restartPolicy Always) when it has started. Empty once all are.
  std::vector<ContainerStatus> initializing;
  std::vector<ContainerStatus> containers;
  bool scheduled = false;             // condition PodScheduled
  std::string unschedulable_message;  // its message where it is False
  bool ready = false;                 // condition Ready

  bool deleting() const { return metadata.deletion_time.has_value(); }
  bool ended() const { return phase == PodPhase::kSucceeded || phase == PodPhase::kFailed; }
  bool operator==(const Pod&) const = default;

  static const ResourceType& type();
  static Result<Pod> decode(const Json& json);
  static const JsonSelection& selection();  // what decode() reads
  Json encode() const;
};

}  // namespace pitcrew::kube
