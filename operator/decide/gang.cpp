#include "operator/decide/gang.hpp"

#include <algorithm>

#include "operator/decide/avoid.hpp"
#include "operator/decide/decide.hpp"
#include "operator/decide/drain.hpp"
#include "operator/decide/epoch.hpp"
#include "operator/decide/fit.hpp"
#include "operator/decide/ladder.hpp"
#include "operator/decide/limits.hpp"
#include "operator/decide/node_loss.hpp"
#include "operator/decide/quota.hpp"
#include "operator/decide/replay.hpp"
#include "operator/decide/spares.hpp"
#include "operator/decide/terminal.hpp"

namespace pitcrew::control {
namespace {

// How long the gang waits for a launcher that was there before and doesn't come back, before its slot goes elsewhere.
constexpr Duration kAbsence = seconds(60);
// How long the scheduler may take to find that a pod does fit where it is pinned.
constexpr Duration kUnschedulable = seconds(10);
constexpr char kPodRefused[] = "PodRefused";
constexpr Duration kFitAgain = seconds(30);
constexpr Duration kFirstBackOff = seconds(10);
constexpr Duration kLongestBackOff = minutes(5);

bool most_are_silent(const Situation& situation) {
  const size_t silent = situation.in.silent_nodes.size();
  return silent >= 3 && silent > situation.in.connected_nodes;
}

void set_admitted(Situation& situation, bool admitted, std::string reason, std::string message) {
  set_condition(situation.status.conditions, {"Admitted", admitted, std::move(reason), std::move(message),
                                              situation.job.metadata.generation, situation.now});
}

// Why a member will not join; empty: it is there, or may still come.
std::string hopeless(Situation& situation, const Member& member, Instant waiting_since, api::Cause& cause) {
  cause = api::Cause::kUnknown;
  if (member.connected()) return {};
  const std::string name = api::pod_name(situation.job, member.record->serial);
  const bool node_well = member.node != nullptr && member.node->ready();
  if (member.pod_lost()) {
    cause =
        node_well ? (member.pod->ended() ? api::Cause::kLauncherDeath : api::Cause::kPlanned) : api::Cause::kNodeLoss;
    return "pod " + name + (member.pod->ended() ? " has ended" : " is being deleted");
  }
  if (!member.bound() || member.launcher == nullptr) {
    // Not up yet. Its pinned node going away means that it never will be.
    if (!member.record->node.empty() && !node_well && (member.launcher != nullptr || situation.hello_grace_over())) {
      cause = api::Cause::kNodeLoss;
      return "node " + member.record->node + " is " + (member.node == nullptr ? "gone" : "not ready");
    }
    return {};
  }
  const NodeLossVerdict loss = judge_node_loss(situation, member);
  if (loss.look_again) situation.wake_at(*loss.look_again);
  if (loss.lost) {
    cause = api::Cause::kNodeLoss;
    return "node " + member.pod->node_name + " is silent, and " + loss.second_sign;
  }
  const Instant absent = std::max(member.launcher->silent_since.value_or(situation.now), waiting_since);
  if (situation.now < absent + kAbsence) {
    situation.wake_at(absent + kAbsence);
    return {};
  }
  if (most_are_silent(situation)) return {};
  cause = api::Cause::kLauncherDeath;
  return "the launcher of pod " + name + " has been away for " + to_string(kAbsence);
}

// Takes members that will not join out of the gang; false where that ended the job.
bool drop_hopeless(Situation& situation, Instant waiting_since) {
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    const auto member = situation.member_of(Slot(slot));
    if (!member) continue;
    api::Cause cause;
    const std::string why = hopeless(situation, *member, waiting_since, cause);
    if (why.empty()) continue;
    const std::string node = member->bound() ? member->pod->node_name : member->record->node;
    if (const std::string limit = cause == api::Cause::kPlanned ? "" : restart_limit_reached(situation);
        !limit.empty()) {
      fail(situation, "RestartLimitReached", "limit reached, " + limit + "; the last: " + why);
      return false;
    }
    record_failure(situation, {situation.now, cause, api::Rung::kRecreated, node, ""});
    update_avoided(situation);
    situation.notice(true, std::string(api::to_string(cause)), "Replace", "slot " + std::to_string(slot) + ": " + why);
    std::erase_if(situation.status.pods, [&](const api::PodRecord& record) { return record.slot == Slot(slot); });
  }
  return true;
}

// A pod that the scheduler found no room for where it is pinned, since somebody else took it in between: a place
// elsewhere, if there is one. With none it waits where it is, and the gang's time-out decides.
void move_unschedulable(Situation& situation) {
  std::vector<api::PodRecord> stuck;
  for (const api::PodRecord& record : situation.status.pods) {
    const Member member = situation.member(record);
    if (record.node.empty() || member.pod == nullptr || member.bound() || member.pod_lost() ||
        member.pod->unschedulable_message.empty())
      continue;
    const Instant due = member.pod->metadata.creation_time.value_or(situation.now) + kUnschedulable;
    if (situation.now < due) {
      situation.wake_at(due);
    } else {
      stuck.push_back(record);
    }
  }
  for (const api::PodRecord& record : stuck) {
    Fit place = fit(situation, 1, {record.node});
    if (place.nodes.empty()) continue;
    std::erase_if(situation.status.pods, [&](const api::PodRecord& other) { return other.serial == record.serial; });
    reserve(situation, record.slot, std::move(place.nodes.front()));
  }
}

// Nothing runs, so a pod on a node that is being taken away moves at once where there is a place for it.
bool can_leave(const Situation& situation, const Member& member) {
  if (member.node == nullptr || leaving(*member.node).empty()) return false;
  return ready_spare(situation) || !fit(situation, 1).nodes.empty() ||
         situation.spec.placement.capacity == api::CapacityMode::kProvision;
}

void fill_missing(Situation& situation) {
  move_unschedulable(situation);
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    if (const auto member = situation.member_of(Slot(slot))) {
      if (!can_leave(situation, *member)) continue;
      std::erase_if(situation.status.pods, [&](const api::PodRecord& record) { return record.slot == Slot(slot); });
    }
    const std::string suspect = replay_avoids(situation, Slot(slot));
    if (const auto spare = ready_spare(situation, suspect)) {
      promote(situation, *spare, Slot(slot));
      raise_rung(situation, api::Rung::kSpareTaken);
      continue;
    }
    Fit place = suspect.empty() ? fit(situation, 1) : fit(situation, 1, {suspect});
    // What made it worth going elsewhere may be gone by now.
    if (place.nodes.empty() && !suspect.empty()) place = fit(situation, 1);
    if (place.nodes.empty() && situation.spec.placement.capacity == api::CapacityMode::kProvision)
      place.nodes.emplace_back();
    if (place.nodes.empty()) {
      raise_rung(situation, api::Rung::kRecreated);  // it waits for a node to be recreated on
      situation.waiting = "slot " + std::to_string(slot) + " " + place.reason;
      situation.wake_at(situation.now + kFitAgain);
      continue;
    }
    reserve(situation, Slot(slot), std::move(place.nodes.front()));
    raise_rung(situation, api::Rung::kRecreated);
  }
}

void release(Situation& situation, std::string reason, std::string message) {
  api::TrainingJobStatus& status = situation.status;
  const auto released =
      std::count_if(status.failures.begin(), status.failures.end(), [&](const api::FailureRecord& failure) {
        return failure.rung == api::Rung::kReleased &&
               situation.now - failure.time < situation.spec.recovery.restarts.window;
      });
  Duration back_off = kFirstBackOff;
  for (int64_t i = 1; i < released && back_off < kLongestBackOff; ++i) back_off *= 2;
  status.pods.clear();
  status.slots.clear();
  status.phase = api::Phase::kPending;
  situation.clear_mark(mark::kGang);
  situation.clear_mark(mark::kInterrupted);
  situation.clear_mark(mark::kDrain);
  status.marks[mark::kNotBefore] = situation.now + std::min(back_off, kLongestBackOff);
  situation.notice(true, reason, "ReleaseGang", message);
  set_admitted(situation, false, std::move(reason), std::move(message));
}

void admit(Situation& situation) {
  if (const auto not_before = situation.marked(mark::kNotBefore); not_before && situation.now < *not_before) {
    situation.wake_at(*not_before);
    situation.waiting = "the gang was released; it is admitted again after a pause";
    return;
  }
  const uint32_t pods = situation.spec.replicas + situation.spec.spares;
  if (const std::string refused = quota_refusal(situation, pods); !refused.empty()) {
    situation.waiting = "the gang " + refused;
    situation.wake_at(situation.now + kFitAgain);
    return set_admitted(situation, false, "QuotaExceeded", "the gang " + refused);
  }
  Fit place = fit(situation, pods);
  if (situation.spec.placement.capacity == api::CapacityMode::kProvision) place.nodes.assign(pods, "");
  if (place.nodes.empty()) {
    situation.waiting = "the gang " + place.reason;
    situation.wake_at(situation.now + kFitAgain);
    set_admitted(situation, false, "GangDoesNotFit", "the gang " + place.reason);
    return;
  }
  for (uint32_t i = 0; i < pods; ++i) {
    reserve(situation, i < situation.spec.replicas ? std::optional<Slot>(Slot(i)) : std::nullopt,
            std::move(place.nodes[i]));
  }
  situation.status.phase = api::Phase::kStarting;
  situation.set_mark(mark::kGang);
  situation.clear_mark(mark::kNotBefore);
  set_admitted(situation, true, "GangFits", std::to_string(pods) + (pods == 1 ? " pod is placed" : " pods are placed"));
}

}  // namespace

void assemble_gang(Situation& situation) {
  if (situation.status.pods.empty()) return admit(situation);
  const Instant since = situation.marked(mark::kGang).value_or(situation.now);
  if (!drop_hopeless(situation, since)) return;
  fill_missing(situation);
  if (situation.gang_connected()) return commit_epoch(situation);
  const Instant due = since + situation.spec.placement.gang_timeout;
  if (situation.now < due) {
    situation.wake_at(due);
    if (situation.waiting.empty()) situation.waiting = situation.missing();
    return;
  }
  const std::string message = "the gang was not complete within " + to_string(situation.spec.placement.gang_timeout) +
                              ": " + situation.missing();
  if (const std::string limit = restart_limit_reached(situation); !limit.empty()) {
    return fail(situation, "RestartLimitReached", "limit reached, " + limit + "; the last: " + message);
  }
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    const auto member = situation.member_of(Slot(slot));
    if (member && member->connected()) continue;
    record_failure(situation,
                   {situation.now, api::Cause::kUnknown, api::Rung::kReleased, member ? member->record->node : "", ""});
  }
  update_avoided(situation);
  release(situation, "GangTimeout", message);
}

void tell_refusal(Situation& situation) {
  const Condition* admitted = find_condition(situation.status.conditions, "Admitted");
  const bool told = admitted != nullptr && admitted->reason == kPodRefused;
  if (situation.status.pods.empty() || api::terminal(situation.status.phase)) return;
  // While it trains only a spare can have been refused.
  if (!situation.in.pod_refused.empty() && situation.status.phase != api::Phase::kRunning) {
    set_admitted(situation, false, kPodRefused, situation.in.pod_refused.substr(0, 1024));
    situation.waiting = "the API server refuses the job's pods";
  } else if (told && !situation.in.pods.empty()) {
    set_admitted(situation, true, "GangFits", "its pods are taken");
  }
}

void fill_gang(Situation& situation) {
  const Instant since = situation.marked(mark::kInterrupted).value_or(situation.now);
  if (!drop_hopeless(situation, since)) return;
  fill_missing(situation);
  if (situation.gang_connected()) {
    const std::optional<Instant> not_before = next_start_not_before(situation);
    if (!not_before || situation.now >= *not_before) return commit_epoch(situation);
    situation.wake_at(*not_before);
    situation.waiting = "the last starts ended before a step; the next comes after a pause";
    return;
  }
  const Instant due = since + situation.spec.recovery.wait_in_place;
  if (situation.now < due) {
    situation.wake_at(due);
    if (situation.waiting.empty()) situation.waiting = situation.missing();
    return;
  }
  const std::string missing = situation.missing();
  raise_rung(situation, api::Rung::kReleased);
  release(situation, "WaitedInPlace",
          "the gang waited " + to_string(situation.spec.recovery.wait_in_place) + " in place for: " + missing);
}

}  // namespace pitcrew::control
