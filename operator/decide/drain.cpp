#include "operator/decide/drain.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "lib/api/health_names.hpp"
#include "operator/decide/evidence.hpp"
#include "operator/decide/fit.hpp"
#include "operator/decide/ladder.hpp"
#include "operator/decide/limits.hpp"
#include "operator/decide/node_fault.hpp"
#include "operator/decide/planned_stop.hpp"
#include "operator/decide/spares.hpp"
#include "operator/decide/terminal.hpp"
#include "operator/decide/timeline.hpp"

namespace pitcrew::control {
namespace {

constexpr size_t kMaxRecoveries = 10;

// Who says so, by a taint's key; a key that ends in '/' stands for all below it.
constexpr std::array<std::string_view, 7> kRemovalTaints{
    "karpenter.sh/disrupted",                       // Karpenter 1.x
    "karpenter.sh/disruption",                      // Karpenter before 1.0
    "ToBeDeletedByClusterAutoscaler",               // cluster autoscaler
    "node.cloudprovider.kubernetes.io/shutdown",    // cloud controller managers
    "node.kubernetes.io/out-of-service",            // a person, of a node that is off
    "aws-node-termination-handler/",                // spot interruption, rebalancing, maintenance
    "cloud.google.com/impending-node-termination",  // GKE
};

bool says_removal(const kube::Taint& taint) {
  if (taint.effect == "PreferNoSchedule") return false;
  return std::any_of(kRemovalTaints.begin(), kRemovalTaints.end(), [&](std::string_view key) {
    return key.ends_with('/') ? std::string_view(taint.key).starts_with(key) : taint.key == key;
  });
}

std::string nodes_of(const Situation& situation, const std::vector<Slot>& slots) {
  std::vector<std::string> words;
  for (const Slot slot : slots) {
    const auto member = situation.member_of(slot);
    std::string word = "node " + member->node->metadata.name + " (" + leaving(*member->node) + ")";
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(std::move(word));
  }
  return list_of(words);
}

uint32_t connected_spares(const Situation& situation) {
  const auto spares = situation.spares();
  return static_cast<uint32_t>(std::count_if(spares.begin(), spares.end(), [&](const Member& spare) {
    return spare.connected() && spare.node != nullptr && refusal(situation, *spare.node).empty();
  }));
}

void clear(Situation& situation) {
  situation.clear_mark(mark::kDrain);
  situation.clear_mark(mark::kStopDrain);
  situation.clear_mark(mark::kStopFault);
}

// The fault that says most about why the gang moves: the first, a certain one before others.
std::optional<std::pair<Slot, NodeFault>> worst_fault(const Situation& situation) {
  std::optional<std::pair<Slot, NodeFault>> worst;
  for (const Slot slot : faulty_slots(situation)) {
    const NodeView* view = situation.node_view(situation.member_of(slot)->node->metadata.name);
    const auto fault = node_fault(*view);
    if (fault && (!worst || (fault->certain && !worst->second.certain))) worst = {slot, *fault};
  }
  return worst;
}

std::string node_of(const Situation& situation, Slot slot) { return situation.member_of(slot)->node->metadata.name; }

// As of any failure, but for what was saved: counted, limited, and its node avoided.
void move_off_fault(Situation& situation, const std::vector<Slot>& slots, const std::pair<Slot, NodeFault>& worst) {
  const auto& [slot, fault] = worst;
  const Instant stopped = situation.marked(mark::kStopFault).value_or(situation.now);
  Judgement judgement;
  Verdict& verdict = judgement.verdict.emplace();
  verdict.cause = fault.cause;
  verdict.slot = slot;
  verdict.node = node_of(situation, slot);
  verdict.happened = std::min(fault.since.value_or(stopped), stopped);
  verdict.evidence = "node " + verdict.node + " is " + fault.evidence;
  for (const Slot other : slots) {
    if (other == slot) continue;
    const std::string node = node_of(situation, other);
    const auto its_own = node_fault(*situation.node_view(node));
    judgement.lost.push_back({other, its_own ? its_own->cause : api::Cause::kPlanned, node});
  }
  clear(situation);
  recover(situation, judgement);
}

// The ranks have stopped: the slots leave their pods, and the gang is filled again.
void move(Situation& situation, const std::vector<Slot>& slots) {
  if (const auto fault = worst_fault(situation)) return move_off_fault(situation, slots, *fault);
  api::TrainingJobStatus& status = situation.status;
  api::Recovery recovery;
  recovery.cause = api::Cause::kPlanned;
  recovery.rung = api::Rung::kInPlace;
  recovery.happened =
      situation.marked(mark::kStopDrain).value_or(situation.marked(mark::kStopFault).value_or(situation.now));
  recovery.detected = recovery.decided = situation.now;
  recovery.epoch = status.epoch.number.value;
  recovery.evidence = slots.empty() ? "the node stays after all" : nodes_of(situation, slots) + " is being taken away";
  if (!slots.empty()) recovery.node = node_of(situation, slots.front());
  close_timeline(situation, *recovery.happened);
  ++status.restarts.in_place;  // until the slot's new place raises the rung
  record_failure(situation, {situation.now, recovery.cause, recovery.rung, recovery.node, ""});
  set_condition(status.conditions,
                {"Running", false, "Planned", recovery.evidence, situation.job.metadata.generation, situation.now});
  status.recoveries.insert(status.recoveries.begin(), std::move(recovery));
  if (status.recoveries.size() > kMaxRecoveries) status.recoveries.resize(kMaxRecoveries);
  std::erase_if(status.pods, [&](const api::PodRecord& record) {
    return record.slot && std::find(slots.begin(), slots.end(), *record.slot) != slots.end();
  });
  status.phase = api::Phase::kRecovering;
  situation.set_mark(mark::kInterrupted);
  clear(situation);
}

void begin_stop(Situation& situation, const std::vector<Slot>& slots, bool spares_wait) {
  if (const auto fault = worst_fault(situation)) {
    situation.set_mark(mark::kStopFault);
    situation.notice(true, "NodeUnhealthy", "SaveAndMove",
                     "node " + node_of(situation, fault->first) + " is " + fault->second.evidence +
                         ": ranks save and stop, and " +
                         (spares_wait ? "spares take over" : "the job goes on elsewhere"));
    return;
  }
  situation.set_mark(mark::kStopDrain);
  situation.notice(false, "NodeLeaving", "SaveAndMove",
                   nodes_of(situation, slots) + " is being taken away: ranks save and stop, and " +
                       (spares_wait ? "spares take over" : "the job goes on elsewhere"));
}

}  // namespace

std::string leaving(const kube::Node& node) {
  const auto hyperpod = node.metadata.labels.find(api::health::kHyperPodStatus);
  if (hyperpod != node.metadata.labels.end() && hyperpod->second.starts_with("Unschedulable")) {
    return "HyperPod: " + hyperpod->second;
  }
  for (const kube::Taint& taint : node.taints) {
    if (taint.key == api::health::kUnhealthy) return "unhealthy";
    if (says_removal(taint)) return "tainted " + taint.key;
  }
  return node.unschedulable ? "cordoned" : "";
}

std::vector<Slot> leaving_slots(const Situation& situation) {
  std::vector<Slot> slots;
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    const auto member = situation.member_of(Slot(slot));
    if (member && member->node != nullptr && !leaving(*member->node).empty()) slots.push_back(Slot(slot));
  }
  return slots;
}

namespace {

// A rank that was told to save and stop has failed instead, so the gang can save nothing any more.
bool can_not_save(const Situation& situation) {
  return std::any_of(situation.stored.slots.begin(), situation.stored.slots.end(), [&](const api::SlotStatus& row) {
    const LauncherView* view = situation.launcher(row.pod_uid);
    if (view == nullptr || view->seen != situation.epoch()) return false;
    return std::any_of(view->exited.begin(), view->exited.end(), [](const auto& entry) {
      return entry.second.message.kind != api::channel::ExitKind::kExited || entry.second.message.code != 0;
    });
  });
}

// Ranks save and stop. True where nothing else has to be decided about the job.
bool finish_stop(Situation& situation, const std::vector<Slot>& slots) {
  const bool fault = situation.marked(mark::kStopFault).has_value();
  const Judgement judgement = judge(situation);
  if (judgement.done) {
    succeed(situation);
    return true;
  }
  // Whoever was to save is gone: nobody waits for it.
  if (judgement.verdict && judgement.verdict->cause == api::Cause::kNodeLoss) {
    clear(situation);
    return false;
  }
  const Instant due = fault ? *situation.marked(mark::kStopFault) + fault_grace()
                            : *situation.marked(mark::kStopDrain) + stop_grace(situation);
  if (!all_stopped(situation) && situation.now < due && !(fault && can_not_save(situation))) {
    situation.waiting =
        fault ? "ranks save and stop: a node is unhealthy" : "ranks save and stop: a node is being taken away";
    situation.wake_at(due);
    return true;
  }
  move(situation, slots);
  return api::terminal(situation.status.phase);  // else the gang is filled again at once
}

}  // namespace

bool move_off_leaving_nodes(Situation& situation) {
  if (!situation.epoch_active()) return false;
  const std::vector<Slot> slots = leaving_slots(situation);
  if (situation.marked(mark::kStopDrain) || situation.marked(mark::kStopFault)) return finish_stop(situation, slots);
  if (slots.empty()) {
    clear(situation);
    return false;
  }
  // What is failing is judged first.
  if (judge(situation).verdict) return false;
  const auto fault = worst_fault(situation);
  // What has not trained yet has nothing to save; on an unhealthy node it need not try.
  if (situation.status.phase != api::Phase::kRunning) {
    if (fault) move(situation, slots);
    return api::terminal(situation.status.phase);
  }
  const auto noticed = situation.marked(mark::kDrain);
  const bool spares_wait = connected_spares(situation) >= slots.size();
  const Instant due = noticed.value_or(situation.now) + situation.spec.lifecycle.warn_before;
  if (!noticed) situation.set_mark(mark::kDrain);
  if (spares_wait || situation.now >= due || (fault && fault->second.certain)) {
    begin_stop(situation, slots, spares_wait);
    return true;
  }
  if (!noticed) {
    situation.notice(false, "NodeLeaving", "PrepareToMove",
                     nodes_of(situation, slots) + " is being taken away: pods elsewhere are prepared; ranks save and " +
                         "move within " + to_string(situation.spec.lifecycle.warn_before));
  }
  situation.wake_at(due);
  return false;
}

}  // namespace pitcrew::control
