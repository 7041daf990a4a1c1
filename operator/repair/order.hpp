#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lib/api/node_health.hpp"
#include "lib/base/time.hpp"
#include "lib/kube/types/node.hpp"

namespace pitcrew::control {

using pitcrew::to_string;  // durations and codes, beside the overload below

// Who repairs a node.
enum class RepairMode {
  kNone,       // NodeHealth says what it needs, and that is all
  kCondition,  // EKS' node auto repair, by the condition AcceleratedHardwareReady
  kNodeClaim,  // Karpenter: its NodeClaim is deleted
  kLabel,      // HyperPod, by its label
  kWebhook,    // whoever listens to a POST
};
std::string_view to_string(RepairMode mode);
Result<RepairMode> parse_repair_mode(std::string_view word);

// One instance, as the leader sees it.
struct NodeCare {
  std::shared_ptr<const kube::Node> node;  // null: gone
  std::shared_ptr<const api::NodeHealth> health;
  bool used = false;  // pods of jobs, or with GPUs, are on it and haven't ended
};

struct RepairOrder {
  api::HealthAction action = api::HealthAction::kReboot;
  std::string reason;   // the rule, CamelCase: "Xid79"
  std::string message;  // for people
  Instant since;        // when the fault that asks for it was raised
  bool operator==(const RepairOrder&) const = default;
};

// What the mode has to do for the node now; nothing where it needs nothing, where its agent has not quarantined it
// (shadow mode, no token of the CordonBudget), where people hold it, or while jobs are still on it. Pure.
//
// Condition, NodeClaim and label know Reboot and Replace: a Reset, which nothing of ours does, is a Reboot to them. To
// Karpenter both are the same. A webhook hears of everything.
std::optional<RepairOrder> repair_order(const NodeCare& care, RepairMode mode);

// HyperPod's word for it.
std::string_view hyperpod_status(api::HealthAction action);

}  // namespace pitcrew::control
