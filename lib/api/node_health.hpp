#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/api/health_policy.hpp"

namespace pitcrew::api {

// A GPU as its node's agent last saw it.
struct GpuIdentity {
  std::string uuid;
  std::string serial;
  std::string pci;    // 0000:b9:00.0
  std::string model;  // NVIDIA H200
  bool operator==(const GpuIdentity&) const = default;
};

// One rule that holds, for one GPU, network device or the node.
struct HealthVerdict {
  std::string rule;
  std::string device;  // a GPU's UUID, a network device's name; empty: the node
  HealthSeverity severity = HealthSeverity::kWarning;
  bool certain = false;
  HealthAction action = HealthAction::kNone;
  std::string message;  // why, with what was seen
  Instant since;
  Instant last;
  uint32_t count = 1;  // matches so far
  bool operator==(const HealthVerdict&) const = default;
};

enum class HealthChange { kRaised, kCleared };
std::string_view to_string(HealthChange change);

struct HealthEvent {
  Instant time;
  std::string rule;
  std::string device;
  HealthChange change = HealthChange::kRaised;
  std::string message;
  HealthSeverity severity = HealthSeverity::kWarning;
  bool operator==(const HealthEvent&) const = default;
};

// A device's rate where it has crossed a rule's limit: what the operator judges over several nodes.
struct DeviceRate {
  std::string device;
  std::string counter;
  double per_second = 0;
  Instant time;
  bool operator==(const DeviceRate&) const = default;
};

// How a test of a deep check came out.
enum class CheckOutcome {
  kPassed,
  kFailed,   // the hardware is at fault
  kSkipped,  // does not apply here: one GPU has nobody to talk to; in no NodeHealth
  kUnknown,  // could not be done; says nothing about the hardware
};
std::string_view to_string(CheckOutcome outcome);

// The result of one kind of test of a deep check; written by the operator alone.
struct CheckResult {
  std::string id;    // of the request
  std::string test;  // "run": there is no report, and `message` says why
  CheckOutcome outcome = CheckOutcome::kUnknown;
  std::string message;
  Instant time;
  bool operator==(const CheckResult&) const = default;
};

struct NodeHealthSpec {
  std::string provider_id;  // the instance; empty where the cloud gives none, then node_uid is its identity
  std::string node_uid;
  std::string node_name;
  bool operator==(const NodeHealthSpec&) const = default;
};

struct NodeHealthStatus {
  bool healthy = true;
  HealthAction needs = HealthAction::kNone;  // the strongest action of its faults
  std::string message;
  std::string boot_id;
  std::vector<GpuIdentity> gpus;
  std::vector<HealthVerdict> verdicts;
  std::vector<HealthEvent> history;  // newest last, at most kMaxHistory
  std::vector<DeviceRate> rates;
  std::string memory;  // what the agent's judgement carries over a restart; nobody else's business
  std::vector<CheckResult> checks;
  bool operator==(const NodeHealthStatus&) const = default;
};

// Cluster-scoped, named by node_health_name(); outlives its node.
struct NodeHealth {
  static constexpr size_t kMaxHistory = 100;
  static constexpr size_t kMaxVerdicts = 64;
  static const ResourceType& type();

  ObjectMeta metadata;
  NodeHealthSpec spec;
  NodeHealthStatus status;
  bool operator==(const NodeHealth&) const = default;

  Json encode() const;
  // Decodes and validates; the error names every problem.
  static Result<NodeHealth> decode(const Json& json);
};

NodeHealth decode_node_health(const Json& json, Problems& problems);
void validate(const NodeHealth& health, Problems& problems);

// Of the newest deep check: failed where one of its tests failed; else unknown where one could not be done, or there
// was no check; else passed.
CheckOutcome checked(const NodeHealthStatus& status);
// When the newest fault was raised that no passed deep check came after; nothing: none is known.
std::optional<Instant> unchecked_fault(const NodeHealthStatus& status);

// "aws:///us-east-2b/i-0123456789abcdef0" → "i-0123456789abcdef0"; without a provider ID "node-" and the node's UID. A
// name that an API server takes.
std::string node_health_name(const NodeHealthSpec& spec);

}  // namespace pitcrew::api
