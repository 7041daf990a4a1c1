#include "trainer/train/trainer.hpp"

#include <utility>

#include "trainer/train/run.hpp"

namespace pitcrew::trainer {

End Run::steps() {
  services_.page->set_phase(page::Phase::kFirstStep);
  open_replay();
  meter_.emplace(StepMeter::Settings{static_cast<double>(config_.tokens_per_step()),
                                     config_.model.flops_per_token(config_.tokens), peak_flops_ * comm_.size(),
                                     memory_});
  const uint64_t lane = plan_.lane_sequences();
  BatchLoader loader(*source_, *order_, *services_.clock,
                     {config_.sequences, lanes_.first * lane, lanes_.count() * lane, lane, lanes_.stride * lane},
                     samples_);
  line_time_ = services_.clock->now();
  line_step_ = step_;
  while (step_.value < config_.steps && !stop_) {
    if (auto failed = one_step(loader)) return failed;
  }
  const bool done = step_.value >= config_.steps;
  // A checkpoint of the last step was saved after its evaluation.
  if (done && trained_ && config_.held_out > 0 && evaluated_ != step_) {
    if (auto failed = evaluate()) return failed;
  }
  return finish(!done);
}

// While the device updates, the host already prepares the next step and gives it to the device: what the update found
// is read when that step's losses are there. The next update is given only after that, so a step that was held back is
// looked into from the state that it has left.
End Run::one_step(BatchLoader& loader) {
  const Instant began = services_.clock->now();
  const Duration waited_before = loader.waited();
  Pending now;
  now.step = pending_ ? pending_->step.next() : step_.next();
  PITCREW_END_ASSIGN(now.batch, loader.next(), exit_code::kBadData);
  now.waited = loader.waited();
  meter_->add(StepPart::kData, now.waited - waited_before);

  if (services_.fault != nullptr)
    services_.fault->begin(now.step, now.batch.first_sample, plan_.lane_sequences(), lanes_.stride);
  PITCREW_END_ASSIGN(now.own,
                     timed(StepPart::kCompute,
                           [&]() -> Result<OwnResult> {
                             PITCREW_ASSIGN(auto losses, engine_->compute(now.batch.tokens));
                             return OwnResult{std::move(losses), engine_->own_digest()};
                           }),
                     exit_code::kTryAgain);
  if (auto failed = settle()) return failed;

  StepReport mine = wishes(now.step);
  mine.losses = now.own.losses;
  mine.confirmed = replay_->same_as_first(now.step, now.own);
  PITCREW_END_ASSIGN(now.shared, timed(StepPart::kExchange, [&] { return share(comm_, plan_, mine); }),
                     exit_code::kTryAgain);
  PITCREW_END(timed(StepPart::kExchange, [&] { return engine_->reduce(*reducer_); }), exit_code::kTryAgain);

  now.loss = tree_sum(now.shared.losses) / static_cast<double>(config_.tokens_per_step());
  now.loss_limit = spikes_.loss_limit();
  const bool believed = now.loss <= now.loss_limit && !now.shared.confirmed;
  const Instant updating = services_.clock->now();
  update(now.step, believed);
  if (due_now(now)) engine_->updated();
  meter_->add(StepPart::kOptimizer, services_.clock->now() - updating);
  now.measure = meter_->finish(to_seconds(services_.clock->now() - began), *services_.page);
  now.measure.reproducible = reproducible();
  pending_ = std::move(now);
  return due_now(*pending_) ? settle() : End();
}

// Whatever needs the step's state, or is asked for, waits for it; so does the first step, which people wait for.
bool Run::due_now(const Pending& pending) const {
  const StepReport& asked = pending.shared;
  const bool evaluates = config_.evaluate_every > 0 && pending.step.value % config_.evaluate_every == 0;
  return !trained_ || evaluates || asked.stop || asked.save_durable || asked.save_memory ||
         asked.save_request > save_served_ || pending.step.value >= config_.steps || compare_due(pending) ||
         pending.step.value % StepMeter::kCompareEvery == 0;
}

bool Run::compare_due(const Pending& pending) const {
  const bool due = config_.compare_every > 0 && pending.step.value % config_.compare_every == 0;
  return (mesh_.grid().replicas > 1 || mesh_.grid().tensor > 1) && (due || pending.shared.save_durable);
}

End Run::settle() {
  if (!pending_) return {};
  Pending done = *std::exchange(pending_, std::nullopt);
  const GradientSummary summary = engine_->updated();
  if (summary.finite == 0) return suspect(std::move(done), summary);
  if (const auto passed = replay_->passed(done.step, done.own)) tell(*passed);

  step_ = done.step;
  samples_ += config_.sequences;
  spikes_.add(done.loss, summary.norm);
  if (log_) PITCREW_END(log_->append(step_, done.loss, samples_, done.measure), exit_code::kTryAgain);
  services_.page->step_done(step_, samples_, done.loss);
  if (!trained_) services_.page->set_phase(page::Phase::kTraining);
  trained_ = true;
  report_step(done, summary);
  if (auto failed = after_step(done)) return failed;

  if (config_.evaluate_every > 0 && step_.value % config_.evaluate_every == 0) {
    if (auto failed = evaluate()) return failed;
  }
  // The end saves what it stops at; nothing is begun for it here.
  stop_ = done.shared.stop;
  if (!stop_ && step_.value < config_.steps) save(done.shared);
  report_saves();
  return {};
}

// What this rank was asked for, and what is due.
StepReport Run::wishes(Step next) {
  StepReport mine;
  mine.stop = asked_to_stop();
  mine.save_request = services_.page->save_requested();
  if (checkpointer_) {
    const SaveKinds due = checkpointer_->due(next);
    mine.save_durable = due.durable || (schedule_ && schedule_->due(services_.clock->now()));
    mine.save_memory = due.memory;
  }
  return mine;
}

// The optimizer's step, held back by the device where the gradient is not finite or a spike, and where the loss is not
// `believed`.
void Run::update(Step next, bool believed) {
  AdamWSettings optimizer = config_.optimizer;
  optimizer.learning_rate = learning_rate(config_, next.value);
  const double limit = believed ? spikes_.norm_limit() : -1;
  engine_->update(static_cast<double>(config_.tokens_per_step()), config_.clip, limit, optimizer, next.value, [&] {
    if (!engine_->announces_writes()) hold([&] { checkpointer_->hold_mutation(); });
  });
}

void Run::hold(const std::function<void()>& until_copied) {
  if (!checkpointer_) return;
  const Instant held = services_.clock->now();
  until_copied();
  const Duration waited = services_.clock->now() - held;
  paused_ += waited;
  meter_->add(StepPart::kStall, waited);
  meter_->add(StepPart::kOptimizer, -waited);
}

End Run::after_step(const Pending& done) {
  if (services_.fault != nullptr && engine_->device().host_memory())
    services_.fault->after_update(step_, engine_->state_tensors());
  if (compare_due(done)) {
    if (auto failed = compare_states()) return failed;
  }
  PITCREW_END_ASSIGN(const auto straggler, meter_->compare(step_.value, comm_, *services_.page), exit_code::kTryAgain);
  if (straggler) print(straggler->message);
  return {};
}

void Run::report_step(const Pending& done, const GradientSummary& summary) {
  services_.page->set_gauge("loss", done.loss);
  services_.page->set_gauge("gradient_norm", summary.norm);
  services_.page->set_gauge("learning_rate", learning_rate(config_, step_.value));
  if (!is_first() || (step_.value % config_.log_every != 0 && step_.value != config_.steps)) return;
  const Instant now = services_.clock->now();
  const double seconds = to_seconds(now - line_time_);
  const auto steps = static_cast<double>(step_.value - line_step_.value);
  const double tokens = steps * static_cast<double>(config_.tokens_per_step());
  print(formatted("step %llu/%llu  loss %.4f  norm %.3f  lr %.2e  %.1f k tokens/s  %.0f ms/step  data wait %.2f %%%s",
                  static_cast<unsigned long long>(step_.value), static_cast<unsigned long long>(config_.steps),
                  done.loss, summary.norm, learning_rate(config_, step_.value),
                  seconds > 0 ? tokens / seconds / 1000 : 0.0, 1000 * seconds / steps,
                  seconds > 0 ? 100 * to_seconds(done.waited - line_waited_) / seconds : 0.0,
                  done.measure.mfu ? formatted("  MFU %.1f %%", 100 * *done.measure.mfu).c_str() : ""));
  line_time_ = now;
  line_step_ = step_;
  line_waited_ = done.waited;
}

void Run::save(const StepReport& shared) {
  if (!checkpointer_) return;
  SaveKinds kinds{shared.save_durable, shared.save_memory};
  uint64_t request = 0;
  if (shared.save_request > save_served_) {
    save_served_ = request = shared.save_request;
    (checkpoint().path.empty() ? kinds.memory : kinds.durable) = true;
  }
  if (!kinds.durable && !kinds.memory) return;
  if (log_) {
    // The log must not be behind a checkpoint that can be resumed from.
    const Status synced = log_->sync();
    if (!synced)
      return services_.log.error("the step log can't be made durable, so this save is left out",
                                 {{"error", synced.error().message}});
  }
  save_began_ = services_.clock->now();
  if (schedule_ && kinds.durable) schedule_->begun(save_began_);
  checkpointer_->begin(step_, state(), kinds, request);
  paused_ = services_.clock->now() - save_began_;
  meter_->add(StepPart::kStall, paused_);
}

void Run::report_saves() {
  if (!checkpointer_) return;
  for (const SaveOutcome& outcome : checkpointer_->poll()) {
    const std::string what =
        std::string(to_string(outcome.place)) + " checkpoint of step " + std::to_string(outcome.step.value);
    switch (outcome.result) {
      case SaveOutcome::Result::kSaved:
        if (schedule_ && outcome.place == Place::kDurable)
          schedule_->measured(paused_, services_.clock->now() - save_began_);
        if (outcome.place == Place::kDurable)
          print(formatted("saved %s, %.1f MB", what.c_str(), static_cast<double>(outcome.bytes) / 1e6));
        break;
      case SaveOutcome::Result::kSkipped:
        services_.log.info("skipped " + what, {{"why", outcome.message}});
        break;
      case SaveOutcome::Result::kFailed:
        services_.log.error("failed " + what, {{"why", outcome.message}});
        break;
    }
  }
}

// Lanes of one pass: losses are added, not gradients.
End Run::evaluate() {
  services_.page->set_phase(page::Phase::kEvaluating);
  const auto sequences = static_cast<uint32_t>(config_.held_out);
  PITCREW_END_ASSIGN(const LanePlan plan, LanePlan::make(sequences, plan_.micro(), plan_.ranks(), plan_.shards()),
                     exit_code::kBadConfiguration);
  StepReport mine;
  const LaneShare lanes = plan.of(mesh_.data_rank());
  for (uint32_t i = 0; i < plan.micro_steps(); ++i) {
    std::vector<int32_t> tokens;
    if (i < lanes.count()) {
      PITCREW_END_ASSIGN(tokens, read_held_out(*source_, *order_, uint64_t{lanes[i]} * plan.micro(), plan.micro()),
                         exit_code::kBadData);
    }
    PITCREW_END_ASSIGN(const double loss, engine_->evaluate(tokens), exit_code::kTryAgain);
    if (i < lanes.count()) mine.losses.push_back(loss);
    services_.page->beat();
  }
  PITCREW_END_ASSIGN(const StepReport shared, share(comm_, plan, mine), exit_code::kTryAgain);
  const double loss = tree_sum(shared.losses) / (static_cast<double>(sequences) * config_.tokens);
  if (log_) PITCREW_END(log_->append_evaluation(step_, loss, sequences), exit_code::kTryAgain);
  services_.page->set_gauge("held_out_loss", loss);
  print(formatted("step %llu  held-out loss %.4f", static_cast<unsigned long long>(step_.value), loss));
  evaluated_ = step_;
  services_.page->set_phase(page::Phase::kTraining);
  return {};
}

End Run::finish(bool stopped) {
  services_.page->set_phase(page::Phase::kSaving);
  if (log_) PITCREW_END(log_->sync(), exit_code::kTryAgain);
  if (checkpointer_) {
    const uint64_t request = services_.page->save_requested();
    PITCREW_END(checkpointer_->finish(step_, state(), request > save_served_ ? request : 0), exit_code::kTryAgain);
    report_saves();
  }
  if (log_) PITCREW_END(log_->settle(), exit_code::kTryAgain);
  // Nobody leaves while another still needs it.
  PITCREW_END(comm_.barrier(), exit_code::kTryAgain);
  print((stopped ? "stopped at step " : "done: step ") + std::to_string(step_.value));
  if (!stopped) services_.page->set_phase(page::Phase::kDone);
  return {};
}

Outcome train(const TrainConfig& config, const RankEnvironment& environment, TrainerServices services) {
  const auto grid = config.parallel.grid(services.training->size());
  if (!grid) return {exit_code::kBadConfiguration, grid.error().message, std::nullopt};
  const auto plan = LanePlan::make(config.sequences, config.micro, grid->data_ranks(), grid->shards, config.passes);
  if (!plan) return {exit_code::kBadConfiguration, plan.error().message, std::nullopt};
  const Mesh mesh(*grid, services.training->rank());
  return Run(config, environment, std::move(services), *plan, mesh).run();
}

}  // namespace pitcrew::trainer
