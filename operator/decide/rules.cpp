#include "operator/decide/rules.hpp"

#include <algorithm>

#include <re2/re2.h>

namespace pitcrew::control {

std::optional<RuleMatch> match_rules(const std::vector<api::RecoveryRule>& rules, const Verdict& verdict) {
  for (size_t index = 0; index < rules.size(); ++index) {
    const api::RecoveryRule& rule = rules[index];
    if (!rule.exit_codes.empty()) {
      if (!verdict.exit_code) continue;
      if (std::find(rule.exit_codes.begin(), rule.exit_codes.end(), *verdict.exit_code) == rule.exit_codes.end())
        continue;
    }
    if (!rule.log.empty()) {
      RE2::Options options;
      options.set_log_errors(false);
      options.set_max_mem(1 << 20);
      const RE2 pattern(rule.log, options);
      // Validation has refused what RE2 does not compile; what came past it matches nothing.
      if (!pattern.ok()) continue;
      const bool found = std::any_of(verdict.log.begin(), verdict.log.end(),
                                     [&](const std::string& line) { return RE2::PartialMatch(line, pattern); });
      if (!found) continue;
    }
    if (rule.exit_codes.empty() && rule.log.empty()) continue;
    return RuleMatch{rule.action, index};
  }
  return std::nullopt;
}

std::string program_at_fault(const Situation& situation, const Verdict& verdict) {
  if (!verdict.exit_code && verdict.log.empty() && verdict.fingerprint.empty()) return {};
  if (const auto match = match_rules(situation.spec.recovery.rules, verdict)) {
    if (match->action == api::RuleAction::kRestart) return {};
    return "spec.recovery.rules[" + std::to_string(match->index) + "] says Fail: " + verdict.evidence;
  }
  if (verdict.exit_code == exit_code::kBadConfiguration) return "exit code 64, bad configuration: " + verdict.evidence;
  if (verdict.exit_code == exit_code::kBadData) return "exit code 65, bad data: " + verdict.evidence;
  if (verdict.fingerprint.empty()) return {};
  for (const api::FailureRecord& before : situation.status.failures) {
    if (before.fingerprint != verdict.fingerprint || before.node == verdict.node || before.node.empty()) continue;
    return "the same failure on other hardware: " + verdict.fingerprint + ", on node " + before.node + " and on node " +
           verdict.node;
  }
  return {};
}

}  // namespace pitcrew::control
