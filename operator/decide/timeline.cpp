#include "operator/decide/timeline.hpp"

#include <algorithm>
#include <cmath>

namespace pitcrew::control {
namespace {

double* part(const api::TrainingJobStatus& before, api::GoodputStatus& goodput) {
  switch (before.phase) {
    case api::Phase::kPending:
      return &goodput.queued;
    case api::Phase::kStarting:
      return &goodput.starting;
    case api::Phase::kRunning:
      return &goodput.training;
    case api::Phase::kRecovering:
      return before.marks.contains(mark::kInterrupted) ? &goodput.stalled : &goodput.restoring;
    case api::Phase::kSuspended:
    case api::Phase::kSucceeded:
    case api::Phase::kFailed:
      return nullptr;
  }
  return nullptr;
}

void account_until(Situation& situation, Instant until) {
  const Instant from =
      situation.marked(mark::kAccounted).value_or(situation.job.metadata.creation_time.value_or(situation.now));
  if (until <= from) {
    if (!situation.marked(mark::kAccounted)) situation.status.marks[mark::kAccounted] = until;
    return;
  }
  if (double* seconds = part(situation.stored, situation.status.goodput)) *seconds += to_seconds(until - from);
  situation.status.marks[mark::kAccounted] = until;
}

// The launcher of rank 0, where it knows the present epoch.
const LauncherView* first_launcher(const Situation& situation) {
  if (situation.stored.slots.empty()) return nullptr;
  const LauncherView* view = situation.launcher(situation.stored.slots.front().pod_uid);
  return view != nullptr && view->seen == situation.epoch() ? view : nullptr;
}

// What was trained after the checkpoint that is resumed from is trained again.
void book_lost_steps(Situation& situation, const api::channel::Progress& progress) {
  api::TrainingJobStatus& status = situation.status;
  if (status.recoveries.empty() || status.recoveries.front().first_step) return;
  const uint64_t reached = status.progress.step ? status.progress.step->value : 0;
  const uint64_t resumed = progress.resumed_step ? progress.resumed_step->value : 0;
  const uint64_t lost = progress.resumed_source.empty() || reached <= resumed ? 0 : reached - resumed;
  status.recoveries.front().steps_lost = lost;
  if (reached == 0 || lost == 0) return;
  const double seconds = std::min(status.goodput.training,
                                  status.goodput.training * static_cast<double>(lost) / static_cast<double>(reached));
  status.goodput.training -= seconds;
  status.goodput.redone += seconds;
}

// A durable checkpoint is told twice, by its Saved with the path and by the page's newest step: the newer of the two
// counts.
void follow_checkpoints(Situation& situation, const LauncherView& view) {
  api::CheckpointStatus& checkpoint = situation.status.checkpoint;
  const std::optional<Step> before = checkpoint.durable_step;
  if (view.durable && (!before || view.durable->message.step > *before)) {
    const auto& saved = *view.durable;
    checkpoint.durable_step = saved.message.step;
    checkpoint.durable_time = saved.at;
    checkpoint.durable_path = saved.message.path;
    checkpoint.durable_bytes = saved.message.bytes;
  }
  if (view.progress) {
    const auto& told = view.progress->message;
    if (told.durable_step && (!checkpoint.durable_step || *told.durable_step > *checkpoint.durable_step)) {
      checkpoint.durable_step = told.durable_step;
      checkpoint.durable_time = view.progress->at;
      checkpoint.durable_path.clear();
      checkpoint.durable_bytes = 0;
    }
    if (told.memory_step && checkpoint.memory_step != told.memory_step) {
      checkpoint.memory_step = told.memory_step;
      checkpoint.memory_time = view.progress->at;
    }
  }
  if (checkpoint.durable_step && checkpoint.durable_step != before) {
    set_condition(situation.status.conditions,
                  {"Checkpointed", true, "DurableCheckpoint", "step " + std::to_string(checkpoint.durable_step->value),
                   situation.job.metadata.generation, situation.now});
  }
}

// Five digits: what a column of kubectl has room for. The bits are in the step log.
double for_people(double loss) {
  if (loss == 0 || !std::isfinite(loss)) return loss;
  const double scale = std::pow(10, 4 - std::floor(std::log10(std::abs(loss))));
  return std::round(loss * scale) / scale;
}

void follow_progress(Situation& situation, const LauncherView& view) {
  const auto& told = view.progress->message;
  api::ProgressStatus& progress = situation.status.progress;
  if (told.phase == api::channel::kWithoutPage) return;
  if (progress.step == told.step && progress.total_steps == told.total_steps) return;
  progress.step = told.step;
  progress.samples = told.samples;
  progress.tokens_per_second = told.tokens_per_second;
  progress.loss = told.loss ? std::optional(for_people(*told.loss)) : std::nullopt;
  if (told.total_steps > 0) progress.total_steps = told.total_steps;
  progress.updated = view.progress->at;
  const double trained = situation.status.goodput.training;
  progress.eta.reset();
  if (progress.total_steps > told.step.value && told.step.value > 0 && trained > 0) {
    const double rest = static_cast<double>(progress.total_steps - told.step.value);
    progress.eta = situation.now + std::chrono::duration_cast<seconds>(
                                       from_seconds(trained / static_cast<double>(told.step.value) * rest));
  }
}

void follow_members(Situation& situation) {
  uint32_t ready = 0, spare = 0;
  for (const api::PodRecord& record : situation.status.pods) {
    if (situation.member(record).connected()) ++(record.slot ? ready : spare);
  }
  situation.status.desired = situation.spec.replicas;
  situation.status.ready = ready;
  situation.status.spare = spare;
}

}  // namespace

void follow(Situation& situation) {
  follow_members(situation);
  if (!situation.epoch_active()) return;
  const LauncherView* view = first_launcher(situation);
  if (view == nullptr) return;
  follow_checkpoints(situation, *view);
  if (!view->progress || !view->training) return;

  api::TrainingJobStatus& status = situation.status;
  if (status.phase != api::Phase::kRunning) {
    account_until(situation, *view->training);
    book_lost_steps(situation, view->progress->message);
    if (!status.recoveries.empty() && !status.recoveries.front().first_step && status.recoveries.front().ready) {
      status.recoveries.front().restored = view->restored.value_or(*view->training);
      status.recoveries.front().first_step = *view->training;
    }
    status.phase = api::Phase::kRunning;
    if (!situation.marked(mark::kFirstRunning)) situation.set_mark(mark::kFirstRunning);
    const bool blind = view->progress->message.phase == api::channel::kWithoutPage;
    set_condition(
        status.conditions,
        {"Running", true, blind ? "RunningWithoutProgress" : "Training",
         "epoch " + std::to_string(status.epoch.number.value) +
             (blind ? "; the program doesn't write to the progress page: its steps and loss are not known" : ""),
         situation.job.metadata.generation, situation.now});
    situation.notice(false, "Running", "Train",
                     "training in epoch " + std::to_string(status.epoch.number.value) +
                         (status.epoch.resume_step
                              ? ", proposed to resume at step " + std::to_string(status.epoch.resume_step->value)
                              : ""));
    // What is left until now is training already.
    if (situation.now > *view->training) status.goodput.training += to_seconds(situation.now - *view->training);
    status.marks[mark::kAccounted] = situation.now;
  }
  follow_progress(situation, *view);
}

void close_timeline(Situation& situation, Instant happened) {
  account_until(situation, std::min(happened, situation.now));
  const Instant from = situation.marked(mark::kAccounted).value_or(situation.now);
  if (situation.now > from) situation.status.goodput.stalled += to_seconds(situation.now - from);
  situation.status.marks[mark::kAccounted] = situation.now;
}

void account(Situation& situation) { account_until(situation, situation.now); }

}  // namespace pitcrew::control
