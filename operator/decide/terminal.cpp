#include "operator/decide/terminal.hpp"

namespace pitcrew::control {
namespace {

constexpr Duration kFinishGrace = seconds(60);

void end(Situation& situation, api::Phase phase, const char* condition, std::string reason, std::string message) {
  if (message.size() > 2048) message.resize(2048);
  situation.status.phase = phase;
  situation.status.completion_time = situation.now;
  situation.status.marks.erase(mark::kInterrupted);
  situation.status.marks.erase(mark::kGang);
  situation.status.marks.erase(mark::kNotBefore);
  situation.status.marks.erase(mark::kStopSuspend);
  situation.status.marks.erase(mark::kStopDeadline);
  situation.status.marks.erase(mark::kDrain);
  situation.status.marks.erase(mark::kStopDrain);
  situation.status.marks.erase(mark::kStopFault);
  const int64_t generation = situation.job.metadata.generation;
  set_condition(
      situation.status.conditions,
      {"Running", false, phase == api::Phase::kSucceeded ? "Succeeded" : "Failed", "", generation, situation.now});
  situation.notice(phase == api::Phase::kFailed, reason, "Finish", message);
  set_condition(situation.status.conditions,
                {condition, true, std::move(reason), std::move(message), generation, situation.now});
}

}  // namespace

void succeed(Situation& situation) {
  end(situation, api::Phase::kSucceeded, "Succeeded", "TrainedToTheEnd", "every rank has trained to the end");
}

void fail(Situation& situation, std::string reason, std::string message) {
  end(situation, api::Phase::kFailed, "Failed", std::move(reason), std::move(message));
}

void after_the_end(Situation& situation, Plan& plan) {
  const bool succeeded = situation.stored.phase == api::Phase::kSucceeded;
  const Instant completed = situation.stored.completion_time.value_or(situation.now);
  for (const PodView& view : situation.in.pods) {
    const kube::Pod& pod = *view.pod;
    if (pod.deleting() || pod.ended()) continue;
    const LauncherView* launcher = situation.launcher(pod.metadata.uid);
    const bool hears = succeeded && launcher != nullptr && launcher->connected;
    if (hears && !launcher->sent_finish) {
      plan.messages.push_back({pod.metadata.name, pod.metadata.uid, api::channel::Finish{situation.epoch(), true}});
    }
    if (succeeded && situation.now < completed + kFinishGrace) {
      situation.wake_at(completed + kFinishGrace);
      continue;
    }
    // A failed job's launchers would be restarted by restartPolicy OnFailure: their pods go.
    plan.deletes.push_back(
        {pod.metadata.name, pod.metadata.uid, succeeded ? "the job has succeeded" : "the job has failed"});
  }
  if (!situation.spec.lifecycle.ttl_after_finished) return;
  const Instant due = completed + *situation.spec.lifecycle.ttl_after_finished;
  if (situation.now >= due) {
    plan.delete_job = true;
  } else {
    situation.wake_at(due);
  }
}

}  // namespace pitcrew::control
