#include "operator/decide/resume.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace pitcrew::control {
namespace {

bool newer(const ResumePoint& a, const ResumePoint& b) {
  if (a.claim != 0 && b.claim != 0 && a.claim != b.claim) return a.claim > b.claim;
  return a.step > b.step;
}

// The newest memory step that rank 0's launcher said counts, and when: every member of the epoch's table holds its
// part, whether its own launcher has said so or not, unless it has said hello since, with a list of what it holds.
struct Counted {
  Step step;
  Instant at;
};

std::optional<Counted> counted_last(const Situation& situation) {
  std::optional<Counted> counted;
  const api::CheckpointStatus& told = situation.status.checkpoint;
  if (told.memory_step && told.memory_time) counted = Counted{*told.memory_step, *told.memory_time};
  for (const api::SlotStatus& slot : situation.stored.slots) {
    const LauncherView* view = situation.launcher(slot.pod_uid);
    if (view == nullptr || !view->memory || view->memory->message.epoch != situation.epoch()) continue;
    if (!counted || view->memory->message.step > counted->step)
      counted = Counted{view->memory->message.step, view->memory->at};
  }
  return counted;
}

}  // namespace

std::optional<ResumePoint> propose_resume(const Situation& situation) {
  std::optional<ResumePoint> best;
  if (situation.spec.checkpoint && situation.spec.checkpoint->memory) {
    const uint32_t replicas = situation.spec.replicas;
    const uint32_t copies = std::min(situation.spec.checkpoint->memory->copies, replicas - 1);
    const uint32_t enough = std::max(1u, replicas - copies);
    const auto counted = counted_last(situation);

    std::vector<ResumePoint> candidates;
    std::vector<const LauncherView*> holders;
    // Whoever was in the last table may hold a part, a launcher on its way out included; spares never do.
    for (const LauncherView& view : situation.in.launchers) {
      if (!view.connected || view.silent_since) continue;
      holders.push_back(&view);
      candidates.insert(candidates.end(), view.held.begin(), view.held.end());
    }
    if (counted) candidates.push_back({counted->step, 0, Place::kMemory});
    for (const ResumePoint& candidate : candidates) {
      if (best && !newer(candidate, *best)) continue;
      uint32_t holding = 0;
      for (const LauncherView* view : holders) {
        const bool said = std::any_of(view->held.begin(), view->held.end(), [&](const ResumePoint& held) {
          return held.step == candidate.step &&
                 (held.claim == candidate.claim || held.claim == 0 || candidate.claim == 0);
        });
        const bool in_table = std::any_of(situation.stored.slots.begin(), situation.stored.slots.end(),
                                          [&](const api::SlotStatus& slot) { return slot.pod_uid == view->pod_uid; });
        const bool implied = counted && counted->step == candidate.step && in_table && view->since < counted->at;
        holding += said || implied;
      }
      if (holding >= enough) best = ResumePoint{candidate.step, candidate.claim, Place::kMemory};
    }
  }
  const api::CheckpointStatus& saved = situation.status.checkpoint;
  if (saved.durable_step) {
    const ResumePoint durable{*saved.durable_step, claim_of_path(saved.durable_path), Place::kDurable};
    // At the same step memory is nearer.
    if (!best || newer(durable, *best)) best = durable;
  }
  return best;
}

}  // namespace pitcrew::control
