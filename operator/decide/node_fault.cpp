#include "operator/decide/node_fault.hpp"

#include <algorithm>

#include "lib/api/health_names.hpp"
#include "operator/decide/efa_blame.hpp"

namespace pitcrew::control {
namespace {

using api::Cause;

// An agent's clock may be ahead of ours by so much.
constexpr Duration kClockError = minutes(1);

bool about_network(const std::string& rule) { return rule.starts_with("efa"); }
// What the agent has from HyperPod's label: it takes the node away, which is no failure of the job's (leaving()).
bool hyperpods_word(const std::string& rule) { return rule.starts_with("hyperpod-"); }

bool quarantined(const kube::Node& node) {
  return std::any_of(node.taints.begin(), node.taints.end(),
                     [](const kube::Taint& taint) { return taint.key == api::health::kUnhealthy; });
}

std::string words_of(const api::HealthVerdict& verdict) {
  return verdict.rule + (verdict.device.empty() ? "" : " on " + verdict.device) +
         (verdict.message.empty() ? "" : ": " + verdict.message);
}

// The fault that the node's label names, else the first; HyperPod's word only where there is no other.
const api::HealthVerdict* fault_of(const api::NodeHealth& health, const std::string& rule) {
  const api::HealthVerdict* found = nullptr;
  for (const api::HealthVerdict& verdict : health.status.verdicts) {
    if (verdict.severity != api::HealthSeverity::kFault) continue;
    if (verdict.rule == rule && !hyperpods_word(rule)) return &verdict;
    if (found == nullptr || hyperpods_word(found->rule)) found = &verdict;
  }
  return found;
}

const NodeView* view_of(const Situation& situation, Slot slot) {
  const auto member = situation.member_of(slot);
  return member && member->node != nullptr ? situation.node_view(member->node->metadata.name) : nullptr;
}

bool explained_by_hardware(const Verdict& verdict) {
  switch (verdict.cause) {
    case Cause::kRankCrash:
    case Cause::kHang:
    case Cause::kLauncherDeath:
    case Cause::kUnknown:
    case Cause::kGpuFault:
    case Cause::kEfaFault:
      return true;
    case Cause::kNodeLoss:
    case Cause::kPlanned:
    case Cause::kProgram:
      return false;
  }
  return false;
}

void blame_network(const Situation& situation, Verdict& verdict) {
  std::vector<EfaReport> reports;
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    const NodeView* view = view_of(situation, Slot(slot));
    if (view == nullptr) continue;
    EfaReport report{Slot(slot), view->node->metadata.name, {}, {}};
    if (view->health) report.rates = view->health->status.rates;
    const auto member = situation.member_of(Slot(slot));
    if (member->launcher != nullptr) {
      for (const auto& [peer, said] : member->launcher->unreachable) report.unreachable.push_back(peer);
    }
    reports.push_back(std::move(report));
  }
  const auto blame = blame_efa(reports, situation.now);
  if (!blame) return;
  verdict.cause = Cause::kEfaFault;
  verdict.slot = blame->slot;
  verdict.node = blame->node;
  verdict.evidence = blame->evidence + "; " + verdict.evidence;
}

}  // namespace

std::optional<NodeFault> node_fault(const NodeView& view) {
  if (!quarantined(*view.node)) return std::nullopt;
  const auto label = view.node->metadata.labels.find(api::health::kUnhealthy);
  const std::string rule = label == view.node->metadata.labels.end() ? "" : label->second;
  NodeFault fault;
  const api::HealthVerdict* verdict = view.health ? fault_of(*view.health, rule) : nullptr;
  if (verdict != nullptr) {
    fault.certain = verdict->certain;
    fault.since = verdict->since;
  }
  if (hyperpods_word(verdict != nullptr ? verdict->rule : rule)) return std::nullopt;
  fault.cause = about_network(verdict != nullptr ? verdict->rule : rule) ? Cause::kEfaFault : Cause::kGpuFault;
  fault.evidence = "unhealthy: " + (verdict != nullptr ? words_of(*verdict) : rule.empty() ? "by its agent" : rule);
  return fault;
}

std::vector<Slot> faulty_slots(const Situation& situation) {
  std::vector<Slot> slots;
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    const NodeView* view = view_of(situation, Slot(slot));
    if (view != nullptr && node_fault(*view)) slots.push_back(Slot(slot));
  }
  return slots;
}

void blame_nodes(const Situation& situation, Judgement& judgement) {
  if (!judgement.verdict) return;
  Verdict& verdict = *judgement.verdict;
  const std::vector<Slot> faulty = faulty_slots(situation);
  if (faulty.empty()) {
    if (verdict.cause == Cause::kHang && !verdict.slot) blame_network(situation, verdict);
    return;
  }
  if (verdict.exit_code == exit_code::kBadConfiguration || verdict.exit_code == exit_code::kBadData) return;
  if (explained_by_hardware(verdict)) {
    const bool seen_there = verdict.slot && std::find(faulty.begin(), faulty.end(), *verdict.slot) != faulty.end();
    // A launcher that died elsewhere has its own cause; the faulty slots only go with it.
    if (seen_there || verdict.cause != Cause::kLauncherDeath) {
      const Slot slot = seen_there ? *verdict.slot : faulty.front();
      const NodeView* view = view_of(situation, slot);
      const NodeFault fault = *node_fault(*view);
      verdict.cause = fault.cause;
      verdict.slot = slot;
      verdict.node = view->node->metadata.name;
      verdict.evidence = "node " + verdict.node + " is " + fault.evidence + "; " + verdict.evidence;
      // The same exception at the same step says nothing about the program any more.
      verdict.fingerprint.clear();
    }
  }
  for (const Slot slot : faulty) {
    const bool known = slot == verdict.slot || std::any_of(judgement.lost.begin(), judgement.lost.end(),
                                                           [&](const LostSlot& lost) { return lost.slot == slot; });
    if (known) continue;
    const NodeView* view = view_of(situation, slot);
    judgement.lost.push_back({slot, node_fault(*view)->cause, view->node->metadata.name});
  }
}

std::optional<Verdict> restart_wanted(Situation& situation) {
  if (!situation.status.epoch.committed) return std::nullopt;
  const Instant since =
      std::max(*situation.status.epoch.committed, situation.marked(mark::kRestart).value_or(Instant()));
  std::optional<Verdict> wanted;
  Instant newest = since;
  for (const api::SlotStatus& row : situation.status.slots) {
    const NodeView* view = view_of(situation, row.slot);
    if (view == nullptr || !view->health) continue;
    for (const api::HealthVerdict& verdict : view->health->status.verdicts) {
      if (verdict.action != api::HealthAction::kRestart || verdict.severity == api::HealthSeverity::kInfo) continue;
      if (verdict.last <= since || verdict.last > situation.now + kClockError) continue;
      newest = std::max(newest, verdict.last);
      if (wanted) continue;
      wanted.emplace();
      wanted->cause = Cause::kRankCrash;
      wanted->slot = row.slot;
      wanted->node = view->node->metadata.name;
      wanted->happened = std::min(verdict.last, situation.now);
      wanted->evidence = "node " + wanted->node + ": " + words_of(verdict);
    }
  }
  if (wanted) situation.status.marks[mark::kRestart] = newest;
  return wanted;
}

}  // namespace pitcrew::control
