#include "agent/judge/explain.hpp"

#include <sstream>
#include <vector>

#include "agent/judge/xid_catalogue.hpp"

namespace pitcrew::agent {
namespace {

using api::HealthAction;
using api::HealthClears;
using api::HealthRule;
using api::HealthSeverity;
using api::HealthTest;

std::string number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

template <typename T>
std::string one_of(const std::vector<T>& values, const char* last = " or ") {
  std::ostringstream out;
  for (size_t i = 0; i < values.size(); ++i) out << (i == 0 ? "" : i + 1 == values.size() ? last : ", ") << values[i];
  return out.str();
}

std::string words_of(const HealthTest& test) {
  if (!test.is.empty()) return test.value + " is " + one_of(test.is);
  if (test.above) return test.value + " is above " + number(*test.above);
  if (test.below) return test.value + " is below " + number(*test.below);
  if (!test.above_value.empty()) return test.value + " is above " + test.above_value;
  if (!test.below_value.empty()) return test.value + " is below " + test.below_value;
  if (test.grows) return test.value + " grows by more than " + number(*test.grows);
  if (test.grows_less) return test.value + " grows by less than " + number(*test.grows_less);
  if (test.per_minute) return test.value + " grows by more than " + number(*test.per_minute) + " a minute";
  if (!test.per_minute_above_value.empty()) {
    return test.value + " grows by more than " + test.per_minute_above_value + " a minute";
  }
  if (test.present) return test.value + (*test.present ? " is known" : " is not known");
  if (!test.bits.empty()) return test.value + " has bit " + one_of(test.bits);
  return test.value +
         (test.bits_outside->empty() ? " is not 0" : " has a bit that is not " + one_of(*test.bits_outside));
}

std::string joined(const std::vector<HealthTest>& tests, const char* word) {
  std::string text;
  for (const HealthTest& test : tests) text += (text.empty() ? "" : word) + words_of(test);
  return text;
}

// The rules that can match the code, worst first; rules of the same severity stay in the policy's order.
std::vector<const HealthRule*> rules_about(const api::HealthPolicy& policy, std::string_view kind, uint32_t code) {
  std::vector<const HealthRule*> found;
  for (const HealthSeverity severity : {HealthSeverity::kFault, HealthSeverity::kWarning, HealthSeverity::kInfo}) {
    for (const HealthRule& rule : policy.rules) {
      if (rule.severity == severity && rule.about(kind, code)) found.push_back(&rule);
    }
  }
  return found;
}

// Why ours is not what others do, in one sentence; empty where it is.
std::string difference(uint32_t code, const std::vector<const HealthRule*>& rules) {
  bool fault = false, only_sometimes = true;
  for (const HealthRule* rule : rules) {
    if (rule->severity != HealthSeverity::kFault) continue;
    fault = true;
    only_sometimes = only_sometimes && !condition_of(*rule).empty();
  }
  const bool eks = eks_agent_does(code) == "node replaced";
  const bool sentinel = nvsentinel_does(code).starts_with("fatal");
  if (code == 63)
    return "a remapped row is memory repaired, not broken; failed and pending remaps have rules of their own";
  if (code == 74)
    return "the registers are decoded: harmless bits cost nothing, hardware is replaced, the rest is reset";
  if (code >= 144 && code <= 150)
    return "decoded by unit and error status; only what NVIDIA's table calls fatal is a fault";
  if (code == 154) return "its text names the action; that is what follows";
  if (code == 45) return "judged by whether another XID explains it";
  if (code == 48 || code == 79) return "";
  const XidEntry* entry = find_xid(code);
  if (entry->resolution == Resolution::kUnused) {
    return sentinel ? "newer drivers use such codes for other things; a node is not taken away for them" : "";
  }
  if (!fault && eks) return "nothing is wrong with the node";
  if (!fault && sentinel) return "NVIDIA's newer catalogue gives no reason to take the node";
  if (fault && !only_sometimes && !eks) return "the EKS agent's list does not have it and cannot be changed";
  return "";
}

std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string ours(const std::vector<const HealthRule*>& rules) {
  std::string text;
  for (const HealthRule* rule : rules) {
    const std::string condition = condition_of(*rule);
    if (rule->severity == HealthSeverity::kInfo && !text.empty()) {
      text += "<br>else counted";
      break;
    }
    if (!text.empty()) text += "<br>";
    text += rule->severity == HealthSeverity::kInfo ? "counted" : std::string(to_string(rule->severity));
    if (rule->action != HealthAction::kNone) text += ", **" + std::string(to_string(rule->action)) + "**";
    if (!condition.empty()) text += " " + condition;
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

std::string consequence_of(const HealthRule& rule) {
  if (rule.severity == HealthSeverity::kInfo) return "counted, nothing else";
  std::string text(to_string(rule.severity));
  text += ", " + (rule.action == HealthAction::kNone ? "no action" : std::string(to_string(rule.action)));
  if (rule.severity == HealthSeverity::kFault) {
    text += rule.certain ? ", cordons at once" : ", cordons with a token of the CordonBudget";
  }
  switch (rule.clears) {
    case HealthClears::kAfterTime:
      return text + ", until it was not seen for " + pitcrew::to_string(rule.clear_after);
    case HealthClears::kAfterReboot:
      return text + ", until a reboot";
    case HealthClears::kAfterCheck:
      return text + ", until a deep check passes";
    case HealthClears::kByHand:
      return text + ", until a person clears it";
  }
  return text;
}

std::string condition_of(const HealthRule& rule) {
  std::string text;
  const auto add = [&](const std::string& more) { text += (text.empty() ? "" : ", ") + more; };
  std::string tests = joined(rule.match.all, " and ");
  if (!rule.match.any.empty()) tests += (tests.empty() ? "" : " and ") + joined(rule.match.any, " or ");
  if (!tests.empty()) add("if " + tests);
  if (rule.match.alone > Duration(0)) add("with no other XID within " + pitcrew::to_string(rule.match.alone));
  if (rule.count > 1) {
    std::string times = std::to_string(rule.count) + " times within " + pitcrew::to_string(rule.window);
    if (!rule.same.empty()) times += " with the same " + one_of(rule.same, " and ");
    add(times);
  }
  if (rule.match.only_gpu) add("and on no other GPU");
  return text;
}

std::string explain(const api::HealthPolicy& policy, std::string_view kind, uint32_t code) {
  std::ostringstream out;
  if (kind == "xid") {
    const XidEntry* entry = find_xid(code);
    out << "XID " << code << ": " << (entry == nullptr ? "not in NVIDIA's catalogue" : entry->name) << "\n";
    if (entry != nullptr) out << "  NVIDIA says   " << to_string(entry->resolution) << "\n";
    out << "  EKS agent     " << eks_agent_does(code) << "\n";
    out << "  NVSentinel    " << nvsentinel_does(code) << "\n";
    out << "  DCGM          " << dcgm_does(code) << "\n";
  } else {
    out << "SXID " << code << ": an NVSwitch error\n";
  }
  const auto rules = rules_about(policy, kind, code);
  out << "What follows here" << (rules.empty() ? ": nothing; no rule of the policy is about it\n" : "\n");
  for (const HealthRule* rule : rules) {
    const std::string condition = condition_of(*rule);
    out << "  " << rule->name << (condition.empty() ? "" : " (" + condition + ")") << "\n";
    out << "    what    " << consequence_of(*rule) << "\n";
    out << "    why     " << rule->message << "\n";
    if (!rule->source.empty()) out << "    source  " << rule->source << "\n";
  }
  return std::move(out).str();
}

std::string xid_page(const api::HealthPolicy& policy) {
  std::ostringstream out;
  out << "# XIDs: what follows, here and elsewhere\n\n"
         "Written by `pitcrew health table` from the built-in HealthPolicy; don't edit it, change\n"
         "`agent/judge/builtin_policy.yaml`. `pitcrew health explain XID 94` says the same for one code, with reasons "
         "and sources.\n\n"
         "*EKS agent*: eks-node-monitoring-agent 1.7, whose list is part of the program (\"node replaced\": a "
         "condition that node\n"
         "repair acts on after 10 minutes; \"event\": a warning). *NVSentinel*: its table of XIDs, 1.x. *DCGM*: its "
         "XID health watch.\n"
         "*Here*: the rules that can match, the worst first; **bold** is what the node or job needs.\n\n"
         "| XID | what it is | NVIDIA | EKS agent | NVSentinel | DCGM | here | why ours differs |\n"
         "|---|---|---|---|---|---|---|---|\n";
  for (const XidEntry& entry : xid_catalogue()) {
    const auto rules = rules_about(policy, "xid", entry.code);
    out << "| " << entry.code << " | " << entry.name << " | " << to_string(entry.resolution) << " | "
        << eks_agent_does(entry.code) << " | " << nvsentinel_does(entry.code) << " | " << dcgm_does(entry.code) << " | "
        << cell(ours(rules)) << " | " << difference(entry.code, rules) << " |\n";
  }
  out << "\nCodes above " << kLastXid << " are newer than the policy: a warning, and the node stays.\n";
  return std::move(out).str();
}

}  // namespace pitcrew::agent
