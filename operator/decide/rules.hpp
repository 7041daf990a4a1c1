#pragma once

#include "operator/decide/evidence.hpp"

namespace pitcrew::control {

// What recovery.rules say about a failed rank: the action of the first that matches, with its index for messages. A
// rule matches where everything that it names matches: one of its exit codes, and its pattern somewhere in the last
// lines.
struct RuleMatch {
  api::RuleAction action;
  size_t index;
};
std::optional<RuleMatch> match_rules(const std::vector<api::RecoveryRule>& rules, const Verdict& verdict);

// Why the program itself is at fault, so that no restart helps; empty: it isn't. By a rule, by exit code 64 or 65, or
// since the same exception at the same step has ended it on other hardware before. A rule that says Restart overrides
// the others.
std::string program_at_fault(const Situation& situation, const Verdict& verdict);

}  // namespace pitcrew::control
