#include "operator/decide/ladder.hpp"

#include <algorithm>

#include "operator/decide/avoid.hpp"
#include "operator/decide/fit.hpp"
#include "operator/decide/limits.hpp"
#include "operator/decide/replay.hpp"
#include "operator/decide/rules.hpp"
#include "operator/decide/terminal.hpp"
#include "operator/decide/timeline.hpp"

namespace pitcrew::control {
namespace {

using api::Cause;
using api::Rung;

constexpr size_t kMaxRecoveries = 10;

void count(api::RestartsStatus& restarts, Rung rung, int by) {
  const auto add = [by](uint32_t& counter) { counter = static_cast<uint32_t>(static_cast<int64_t>(counter) + by); };
  switch (rung) {
    case Rung::kInPlace:
      add(restarts.in_place);
      break;
    case Rung::kRelaunched:
    case Rung::kSpareTaken:
      add(restarts.replaced);
      break;
    case Rung::kRecreated:
    case Rung::kShrunk:
    case Rung::kReleased:
      add(restarts.recreated);
      break;
    case Rung::kFailed:
      break;
  }
}

bool seen_on_this_node(const Situation& situation, const Verdict& verdict) {
  if (verdict.fingerprint.empty()) return false;
  const auto& failures = situation.status.failures;
  return std::any_of(failures.begin(), failures.end(), [&](const api::FailureRecord& failure) {
    return failure.fingerprint == verdict.fingerprint && failure.node == verdict.node;
  });
}

void drop_record(Situation& situation, Slot slot) {
  std::erase_if(situation.status.pods, [&](const api::PodRecord& record) { return record.slot == slot; });
}

}  // namespace

RungChoice choose_rung(const Situation& situation, const Verdict& verdict) {
  switch (verdict.cause) {
    case Cause::kNodeLoss:
    case Cause::kGpuFault:
    case Cause::kEfaFault:
      return {true, Rung::kInPlace};
    case Cause::kLauncherDeath: {
      const Duration window = situation.spec.recovery.in_place.window;
      // Once, the container comes back in its pod; the second time on the same node the slot moves.
      const bool again = failures_on_node(situation, Cause::kLauncherDeath, verdict.node, window) >= 1;
      return {again, Rung::kRelaunched};
    }
    case Cause::kRankCrash:
    case Cause::kHang:
    case Cause::kUnknown:
    case Cause::kProgram: {
      if (verdict.replay) return {can_replay_elsewhere(situation, verdict), Rung::kInPlace};
      if (!verdict.slot) return {false, Rung::kInPlace};
      const bool used_up = !in_place_allowed(situation, verdict.cause, verdict.node);
      // The same exception at the same step again: other hardware tells the program's fault from the node's.
      return {used_up || seen_on_this_node(situation, verdict), Rung::kInPlace};
    }
    case Cause::kPlanned:
      return {false, Rung::kInPlace};
  }
  return {};
}

void raise_rung(Situation& situation, Rung rung) {
  if (situation.status.recoveries.empty()) return;
  api::Recovery& recovery = situation.status.recoveries.front();
  if (recovery.first_step || rung <= recovery.rung) return;
  count(situation.status.restarts, recovery.rung, -1);
  count(situation.status.restarts, rung, 1);
  recovery.rung = rung;
  if (!situation.status.failures.empty()) situation.status.failures.back().rung = rung;
}

void recover(Situation& situation, const Judgement& judgement) {
  const Verdict& verdict = *judgement.verdict;
  api::TrainingJobStatus& status = situation.status;

  api::Recovery recovery;
  recovery.cause = verdict.cause;
  recovery.evidence = verdict.evidence;
  recovery.node = verdict.node;
  recovery.rank = verdict.rank;
  recovery.happened = verdict.happened;
  recovery.detected = situation.now;
  recovery.decided = situation.now;
  recovery.epoch = status.epoch.number.value;

  std::string reason, message;
  if (message = program_at_fault(situation, verdict); !message.empty()) {
    reason = "ProgramAtFault";
    recovery.cause = Cause::kProgram;
  } else if (message = restart_limit_reached(situation); !message.empty()) {
    reason = "RestartLimitReached";
    message = "limit reached, " + message + "; the last: " + std::string(api::to_string(verdict.cause)) + ": " +
              verdict.evidence;
  }
  close_timeline(situation, verdict.happened);

  if (!message.empty()) {
    recovery.rung = Rung::kFailed;
    status.recoveries.insert(status.recoveries.begin(), recovery);
    if (status.recoveries.size() > kMaxRecoveries) status.recoveries.resize(kMaxRecoveries);
    record_failure(situation, {situation.now, recovery.cause, Rung::kFailed, verdict.node, verdict.fingerprint});
    fail(situation, std::move(reason), std::move(message));
    return;
  }

  const RungChoice choice = choose_rung(situation, verdict);
  recovery.rung = choice.rung;
  status.recoveries.insert(status.recoveries.begin(), recovery);
  if (status.recoveries.size() > kMaxRecoveries) status.recoveries.resize(kMaxRecoveries);
  if (verdict.cause != Cause::kPlanned) ++status.restarts.total;
  count(status.restarts, choice.rung, 1);
  record_failure(situation, {situation.now, verdict.cause, choice.rung, verdict.node, verdict.fingerprint});
  for (const LostSlot& lost : judgement.lost) {
    if (lost.slot == verdict.slot) continue;
    record_failure(situation, {situation.now, lost.cause, choice.rung, lost.node, ""});
  }
  begin_replay(situation, verdict);
  update_avoided(situation);

  for (const LostSlot& lost : judgement.lost) drop_record(situation, lost.slot);
  if (choice.move && verdict.slot) drop_record(situation, *verdict.slot);
  status.phase = api::Phase::kRecovering;
  situation.set_mark(mark::kInterrupted);
  set_condition(status.conditions, {"Running", false, std::string(api::to_string(verdict.cause)), verdict.evidence,
                                    situation.job.metadata.generation, situation.now});
  situation.notice(true, std::string(api::to_string(verdict.cause)), "Recover", verdict.evidence);
}

}  // namespace pitcrew::control
