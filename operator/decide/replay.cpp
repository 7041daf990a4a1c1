#include "operator/decide/replay.hpp"

#include <algorithm>

#include "operator/decide/avoid.hpp"
#include "operator/decide/fit.hpp"
#include "operator/decide/spares.hpp"

namespace pitcrew::control {
namespace {

uint32_t ranks_of(const Situation& situation) { return situation.spec.replicas * situation.in.shape.processes; }

// Other bits than those of `replay` were computed: its node is as good as broken for this job.
void suspect(Situation& situation, const api::ReplayStatus& replay, const std::string& other) {
  const std::string message = "step " + std::to_string(replay.step.value) + " gave other bits on node " + other +
                              " than on node " + replay.node + ": the hardware of node " + replay.node + " is suspect";
  api::TrainingJobStatus& status = situation.status;
  // The failure is known already, for the limits: only what it was is known now.
  const auto failure = std::find_if(status.failures.rbegin(), status.failures.rend(), [&](const auto& before) {
    return before.node == replay.node && before.cause == api::Cause::kUnknown;
  });
  if (failure != status.failures.rend()) failure->cause = api::Cause::kGpuFault;
  const auto recovery = std::find_if(status.recoveries.begin(), status.recoveries.end(), [&](const auto& before) {
    return before.node == replay.node && before.cause == api::Cause::kUnknown;
  });
  if (recovery != status.recoveries.end()) {
    recovery->cause = api::Cause::kGpuFault;
    recovery->evidence = (recovery->evidence + "; " + message).substr(0, 1024);
  }
  situation.notice(true, "NodeSuspected", "AvoidNode", message);
  update_avoided(situation);
}

std::string node_of(const Situation& situation, Rank rank) {
  for (const api::SlotStatus& row : situation.status.slots) {
    if (rank.value >= row.first_rank.value && rank.value < row.first_rank.value + situation.in.shape.processes)
      return row.node;
  }
  return {};
}

}  // namespace

bool can_replay_elsewhere(const Situation& situation, const Verdict& verdict) {
  return ready_spare(situation, verdict.node) || !fit(situation, 1, {verdict.node}).nodes.empty() ||
         situation.spec.placement.capacity == api::CapacityMode::kProvision;
}

void begin_replay(Situation& situation, const Verdict& verdict) {
  if (!verdict.replay) return;
  const auto before = situation.status.epoch.replay;
  const bool elsewhere = can_replay_elsewhere(situation, verdict);
  api::Recovery& recovery = situation.status.recoveries.front();
  recovery.evidence = (recovery.evidence + (elsewhere ? "; it is computed again on another node"
                                                      : "; no other node is free, so it is computed again on this one"))
                          .substr(0, 1024);
  // Both nodes gave what can't be right, and not the same: whatever the second one is, the first differs from it.
  if (before && before->step == verdict.replay->step && before->rank == verdict.replay->rank &&
      before->node != verdict.node && before->digest != verdict.replay->digest) {
    suspect(situation, *before, verdict.node);
  }
  situation.status.epoch.replay = verdict.replay;
}

void settle_replay(Situation& situation) {
  const auto replay = situation.status.epoch.replay;
  if (!replay) return;
  for (const api::SlotStatus& row : situation.stored.slots) {
    const LauncherView* view = situation.launcher(row.pod_uid);
    if (view == nullptr || view->seen != situation.epoch()) continue;
    for (const auto& [at, said] : view->evidence) {
      if (said.kind != "replay" || said.step != replay->step || said.rank != replay->rank) continue;
      situation.status.epoch.replay.reset();
      if (said.digest.empty() || said.digest == replay->digest) {
        situation.notice(false, "ReplayPassed", "Train", said.message);
      } else {
        suspect(situation, *replay, row.node);
      }
      return;
    }
  }
}

std::string replay_avoids(const Situation& situation, Slot slot) {
  const auto& replay = situation.status.epoch.replay;
  if (!replay || replay->rank.value / situation.in.shape.processes != slot.value) return {};
  return replay->node;
}

std::optional<api::ReplayStatus> carried_replay(const Situation& situation) {
  const auto& replay = situation.status.epoch.replay;
  if (!replay || replay->ranks != ranks_of(situation)) return std::nullopt;
  return replay;
}

std::optional<ReplayPoint> replay_point(const Situation& situation) {
  const auto& replay = situation.stored.epoch.replay;
  if (!replay) return std::nullopt;
  return ReplayPoint{replay->step, replay->rank, replay->node, replay->digest,
                     node_of(situation, replay->rank) != replay->node};
}

}  // namespace pitcrew::control
