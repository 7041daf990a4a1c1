#include "operator/decide/planned_stop.hpp"

#include <algorithm>

#include "operator/decide/evidence.hpp"
#include "operator/decide/terminal.hpp"

namespace pitcrew::control {
namespace {

// Beyond the grace, for the launchers' own reports to arrive.
constexpr Duration kReportTime = seconds(5);
// On an unhealthy node: enough for a step to end and for memory checkpoints, not for ranks that hang.
constexpr Duration kFaultGrace = seconds(3);
constexpr Duration kFaultReportTime = seconds(1);

Duration suspend_grace(const Situation& situation) { return std::max<Duration>(situation.in.shape.grace, seconds(30)); }

bool slot_stopped(const Situation& situation, const api::SlotStatus& row) {
  const kube::Pod* pod = situation.pod(row.serial);
  if (pod == nullptr || pod->ended()) return true;
  const LauncherView* view = situation.launcher(row.pod_uid);
  if (view == nullptr || view->seen != situation.epoch()) return false;
  return view->stopped || view->aborted || view->exited.size() >= situation.in.shape.processes;
}

void suspend(Situation& situation) {
  api::TrainingJobStatus& status = situation.status;
  status.phase = api::Phase::kSuspended;
  status.pods.clear();
  status.slots.clear();
  for (const char* name : {mark::kStopSuspend, mark::kStopDrain, mark::kStopFault, mark::kDrain, mark::kGang,
                           mark::kInterrupted, mark::kNotBefore})
    situation.clear_mark(name);
  const int64_t generation = situation.job.metadata.generation;
  set_condition(status.conditions,
                {"Admitted", false, "Suspended", "spec.lifecycle.suspend is set", generation, situation.now});
  set_condition(status.conditions, {"Running", false, "Suspended", "", generation, situation.now});
  situation.notice(false, "Suspended", "Suspend",
                   "the gang is released; it resumes where it saved once spec.lifecycle.suspend is false");
}

bool stop_for_suspend(Situation& situation) {
  if (situation.status.phase == api::Phase::kSuspended) {
    if (situation.spec.lifecycle.suspend) {
      situation.waiting = "suspended";
      return true;
    }
    situation.status.phase = api::Phase::kPending;
    set_condition(situation.status.conditions,
                  {"Admitted", false, "Resumed", "", situation.job.metadata.generation, situation.now});
    return true;
  }
  const auto since = situation.marked(mark::kStopSuspend);
  if (!since && !situation.spec.lifecycle.suspend) return false;
  // A stop that has begun is finished, even where it isn't wanted any more: half of the ranks may be gone.
  if (!situation.epoch_active()) {
    suspend(situation);
    return true;
  }
  if (!since) {
    situation.set_mark(mark::kStopSuspend);
    situation.notice(false, "Suspending", "SaveAndStop",
                     "ranks save within " + to_string(suspend_grace(situation)) + " and stop");
    return true;
  }
  const Instant due = *since + stop_grace(situation);
  if (all_stopped(situation) || situation.now >= due) {
    suspend(situation);
  } else {
    situation.waiting = "ranks save and stop: the job is suspended";
    situation.wake_at(due);
  }
  return true;
}

bool stop_for_deadline(Situation& situation) {
  const api::LifecycleSpec& lifecycle = situation.spec.lifecycle;
  if (lifecycle.start_deadline && !situation.marked(mark::kFirstRunning)) {
    const Instant due = situation.job.metadata.creation_time.value_or(situation.now) + *lifecycle.start_deadline;
    if (situation.now >= due) {
      fail(situation, "StartDeadlineExceeded",
           "not running within " + to_string(*lifecycle.start_deadline) +
               " (spec.lifecycle.startDeadline): " + situation.missing());
      return true;
    }
    situation.wake_at(due);
  }
  if (!lifecycle.active_deadline || !situation.status.start_time) return false;
  const Instant due = *situation.status.start_time + *lifecycle.active_deadline;
  const Instant warn = due - std::min(lifecycle.warn_before, *lifecycle.active_deadline);
  const auto since = situation.marked(mark::kStopDeadline);
  if (situation.now < warn && !since) {
    situation.wake_at(warn);
    return false;
  }
  const std::string message = "ran for " + to_string(*lifecycle.active_deadline) + " (spec.lifecycle.activeDeadline)";
  const bool over = situation.now >= due || (since ? all_stopped(situation) : !situation.epoch_active());
  if (over) {
    fail(situation, "DeadlineExceeded", message);
  } else if (!since) {
    situation.set_mark(mark::kStopDeadline);
    situation.notice(true, "DeadlineNear", "SaveAndStop", "ranks save and stop before the job has " + message);
  } else {
    situation.waiting = "ranks save and stop: the deadline is near";
    situation.wake_at(due);
  }
  return true;
}

}  // namespace

bool all_stopped(const Situation& situation) {
  return std::all_of(situation.stored.slots.begin(), situation.stored.slots.end(),
                     [&](const api::SlotStatus& row) { return slot_stopped(situation, row); });
}

Duration stop_grace(const Situation& situation) { return suspend_grace(situation) + kReportTime; }

Duration fault_grace() { return kFaultGrace + kFaultReportTime; }

bool plan_stops(Situation& situation) {
  const bool stopping = situation.marked(mark::kStopSuspend) || situation.marked(mark::kStopDeadline);
  if (stopping && situation.epoch_active() && judge(situation).done) {
    succeed(situation);
    return true;
  }
  return stop_for_deadline(situation) || stop_for_suspend(situation);
}

std::optional<PlannedStop> planned_stop(const Situation& situation) {
  if (situation.stored.marks.contains(mark::kStopSuspend))
    return PlannedStop{"the job is suspended", suspend_grace(situation)};
  if (situation.stored.marks.contains(mark::kStopDeadline)) {
    return PlannedStop{"the job's deadline is near", situation.spec.lifecycle.warn_before};
  }
  if (situation.stored.marks.contains(mark::kStopDrain))
    return PlannedStop{"a node of the job is being taken away", suspend_grace(situation)};
  if (situation.stored.marks.contains(mark::kStopFault))
    return PlannedStop{"a node of the job is unhealthy", kFaultGrace};
  return std::nullopt;
}

}  // namespace pitcrew::control
