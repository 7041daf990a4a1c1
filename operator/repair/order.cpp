#include "operator/repair/order.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "lib/api/health_names.hpp"

namespace pitcrew::control {
namespace {

using api::HealthAction;

constexpr std::array<std::pair<std::string_view, RepairMode>, 5> kModes = {{{"none", RepairMode::kNone},
                                                                            {"condition", RepairMode::kCondition},
                                                                            {"nodeclaim", RepairMode::kNodeClaim},
                                                                            {"label", RepairMode::kLabel},
                                                                            {"webhook", RepairMode::kWebhook}}};

bool quarantined(const kube::Node& node) {
  return std::any_of(node.taints.begin(), node.taints.end(),
                     [](const kube::Taint& taint) { return taint.key == api::health::kUnhealthy; });
}

std::string camel_case(const std::string& rule) {
  std::string reason;
  bool upper = true;
  for (const char c : rule) {
    if (!std::isalnum(static_cast<unsigned char>(c))) {
      upper = true;
      continue;
    }
    reason += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = false;
  }
  return reason.empty() ? "Unhealthy" : reason;
}

}  // namespace

std::string_view to_string(RepairMode mode) {
  for (const auto& [word, known] : kModes) {
    if (known == mode) return word;
  }
  return kModes.front().first;
}

Result<RepairMode> parse_repair_mode(std::string_view word) {
  for (const auto& [known, mode] : kModes) {
    if (known == word) return mode;
  }
  return Error(Code::kInvalidArgument,
               "'" + std::string(word) + "' is none of: none, condition, nodeclaim, label, webhook");
}

std::optional<RepairOrder> repair_order(const NodeCare& care, RepairMode mode) {
  if (mode == RepairMode::kNone || !care.node || !care.health || care.used) return std::nullopt;
  if (!quarantined(*care.node) || care.node->metadata.annotations.contains(api::health::kHold)) return std::nullopt;
  const api::NodeHealthStatus& status = care.health->status;
  RepairOrder order;
  order.action = status.needs;
  if (mode != RepairMode::kWebhook) {
    if (order.action < HealthAction::kReset) return std::nullopt;
    if (order.action == HealthAction::kReset) order.action = HealthAction::kReboot;
  } else if (order.action == HealthAction::kNone) {
    return std::nullopt;
  }
  const api::HealthVerdict* cause = nullptr;
  for (const api::HealthVerdict& verdict : status.verdicts) {
    if (verdict.severity != api::HealthSeverity::kFault) continue;
    if (cause == nullptr || verdict.action > cause->action) cause = &verdict;
  }
  if (cause == nullptr) return std::nullopt;
  order.reason = camel_case(cause->rule);
  order.since = cause->since;
  order.message = cause->rule + (cause->device.empty() ? "" : " on " + cause->device) + ": " + cause->message;
  return order;
}

std::string_view hyperpod_status(HealthAction action) {
  return action == HealthAction::kReplace ? "UnschedulablePendingReplacement" : "UnschedulablePendingReboot";
}

}  // namespace pitcrew::control
