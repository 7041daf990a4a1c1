#include "trainer/train/trainer.hpp"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/device_copier.hpp"
#include "trainer/checkpoint/save_interval.hpp"
#include "trainer/comm/observed_comm.hpp"
#include "trainer/cuda/library.hpp"
#include "trainer/data/batch_loader.hpp"
#include "trainer/train/hugging_face.hpp"
#include "trainer/train/memory_plan.hpp"
#include "trainer/train/nonfinite.hpp"
#include "trainer/train/step_log.hpp"
#include "trainer/train/step_report.hpp"

namespace pitcrew::trainer {
namespace {

std::string formatted(const char* format, auto... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string loss_bits(double loss) { return hex64(std::bit_cast<uint64_t>(loss)); }

// An error with the exit code that it means for this process.
struct Failure {
  Error error;
  int exit_code;
};
// Done, stopped, or why not.
using End = std::optional<Failure>;

#define PITCREW_END(expression, code)                                                 \
  do {                                                                                \
    if (auto status_ = (expression); !status_) return Failure{status_.error(), code}; \
  } while (false)
#define PITCREW_END_ASSIGN(target, expression, code) \
  PITCREW_END_ASSIGN_(PITCREW_CONCAT_(end_result_, __LINE__), target, expression, code)
#define PITCREW_END_ASSIGN_(result, target, expression, code) \
  auto result = (expression);                                 \
  if (!result) return Failure{result.error(), code};          \
  target = *std::move(result)

class Run {
 public:
  Run(const TrainConfig& config, const RankEnvironment& environment, TrainerServices services, const LanePlan& plan)
      : config_(config),
        environment_(environment),
        services_(std::move(services)),
        plan_(plan),
        rank_(services_.training->rank()),
        comm_(*services_.training, {[this](uint64_t sequence) { services_.page->enter_collective(sequence); },
                                    [this] { services_.page->leave_collective(); }}),
        reducer_(comm_, plan_) {}

  Outcome run() {
    services_.page->set_phase(page::Phase::kStarting);
    End end = start();
    if (!end) end = restore();
    if (!end) end = steps();
    if (!end) return {};
    Outcome outcome{end->exit_code, end->error.message, blamed_};
    if (!blamed_) outcome.lost_peer = lost_peer();
    if (outcome.lost_peer) services_.page->set_phase(page::Phase::kLostPeer);
    // Nothing of this rank may hold the others, or write, from here on.
    if (log_) log_->abort();
    if (checkpointer_) checkpointer_->abort();
    return outcome;
  }

 private:
  End start();
  End agree();
  End open_engine();
  End agree_on_plans(const Json* kept);
  End import_weights();
  End open_data();
  End restore();
  End steps();
  End one_step(BatchLoader& loader, bool& stop);
  End nonfinite(const Batch& batch, const StepReport& shared, const std::vector<double>& own_losses,
                uint64_t own_digest, const GradientSummary& summary);
  End evaluate();
  End finish(bool stopped);
  void save(const StepReport& shared);
  void report_saves();
  void report_step(double loss, double rate, const GradientSummary& summary, Duration waited);

  Json state() const {
    Json state = {{"order", order_->state(samples_)}, {"config", canonical(config_)}};
    if (ProductPlans* plans = engine_->plans(); plans != nullptr) state["plans"] = plans->text();
    if (schedule_) state["trained"] = static_cast<uint64_t>(to_seconds(schedule_->trained(services_.clock->now())));
    return state;
  }
  const CheckpointSettings& checkpoint() const {
    return environment_.checkpoint ? *environment_.checkpoint : config_.checkpoint;
  }
  bool is_first() const { return rank_ == 0; }
  void print(const std::string& line) const {
    if (is_first() && services_.print) services_.print(line);
  }
  bool asked_to_stop() const {
    return (services_.stop_asked && services_.stop_asked()) || services_.page->stop_requested() > 0;
  }
  std::optional<Rank> lost_peer() const {
    for (const Comm* comm : {services_.training, services_.checkpoints}) {
      if (comm == nullptr) continue;
      if (const auto lost = comm->lost_peer()) return Rank(*lost);
    }
    return std::nullopt;
  }

  const TrainConfig& config_;
  const RankEnvironment& environment_;
  TrainerServices services_;
  const LanePlan plan_;
  const uint32_t rank_;
  ObservedComm comm_;
  GradientReducer reducer_;

  std::unique_ptr<TokenSource> source_;
  std::optional<SampleOrder> order_;
  std::unique_ptr<LaneEngine> engine_;
  std::unique_ptr<DeviceCopier> copier_;
  std::optional<StepLog> log_;  // outlives the checkpointer, whose threads wait for it
  std::unique_ptr<Checkpointer> checkpointer_;
  std::optional<SaveSchedule> schedule_;
  Duration paused_{0};  // by the save that is under way
  Instant save_began_;

  Step step_;             // done
  uint64_t samples_ = 0;  // used
  bool trained_ = false;  // a step in this epoch
  uint64_t save_served_ = 0;
  std::optional<Step> evaluated_;
  std::optional<Rank> blamed_;
  Instant line_time_;  // of the last line for people
  Step line_step_;
  Duration line_waited_{0};
};

End Run::start() {
  if (auto failed = open_data()) return failed;
  if (auto failed = agree()) return failed;
  if (auto failed = open_engine()) return failed;
  engine_->init(config_.seed);
  if (is_first()) {
    services_.page->set_totals(config_.steps, config_.tokens);
    print(formatted("%llu parameters, %s; %u ranks, %u lanes of %u × %u tokens, %llu steps",
                    static_cast<unsigned long long>(config_.model.parameters()), source_->describe().c_str(),
                    plan_.ranks(), plan_.lanes(), plan_.micro(), config_.tokens,
                    static_cast<unsigned long long>(config_.steps)));
  }
  return {};
}

End Run::open_engine() {
  EngineSettings settings{config_.model, config_.tokens, plan_, rank_, config_.recompute};
  if (config_.device != TrainDevice::kCpu) {
    const uint64_t workspace = kernel_workspace_bytes(config_.model, {plan_.micro(), config_.tokens});
    auto gpu = cuda::open({static_cast<int>(environment_.local_rank), workspace});
    if (!gpu && config_.device == TrainDevice::kCuda) return Failure{gpu.error(), exit_code::kBadConfiguration};
    if (!gpu && gpu.error().code != Code::kNotFound) print("on the CPU: " + gpu.error().message);
    if (gpu) {
      PITCREW_END(cuda::problems(config_.model), exit_code::kBadConfiguration);
      // The kernels have their workspace, and the context is made: what is free is for the rest.
      const PlanRequest request{config_.model,    config_.sequences,           config_.micro,
                                config_.tokens,   {.replicas = plan_.ranks()}, Numbers::kMixed,
                                config_.recompute};
      PITCREW_END_ASSIGN(const MemoryPlan plan, memory_plan(request), exit_code::kBadConfiguration);
      print(formatted("%s: %.1f of %.1f GB will be used", gpu->name.c_str(), static_cast<double>(plan.bytes()) / 1e9,
                      static_cast<double>(gpu->total_bytes) / 1e9));
      PITCREW_END(check_fits(request, gpu->total_bytes), exit_code::kBadConfiguration);
      PITCREW_END_ASSIGN(
          engine_,
          LaneEngine::create<BF16>(std::move(settings), std::move(gpu->device), std::move(gpu->kernels), gpu->plans),
          exit_code::kBadConfiguration);
      return {};
    }
  }
  CpuDeviceOptions device = services_.device;
  device.threads = config_.threads;
  PITCREW_END_ASSIGN(engine_, LaneEngine::create_on_cpu(std::move(settings), std::move(device)),
                     exit_code::kBadConfiguration);
  return {};
}

// All ranks multiply by the same plans: those that the checkpoint was made with, else rank 0's, timed now on a step
// whose results nobody uses.
End Run::agree_on_plans(const Json* kept) {
  ProductPlans* plans = engine_->plans();
  if (plans == nullptr) return {};
  if (kept != nullptr && kept->is_string()) {
    const Status used = plans->use(kept->get<std::string>());
    if (used) return {};
    print("not bit for bit: " + used.error().message);
  }
  if (is_first()) {
    plans->set_tuning(true);
    const std::vector<int32_t> tokens(size_t{plan_.of(rank_).count()} * plan_.micro() * (config_.tokens + size_t{1}));
    engine_->compute(tokens);
    plans->set_tuning(false);
  }
  std::string text = is_first() ? plans->text() : "";
  uint64_t size = text.size();
  PITCREW_END(comm_.broadcast(std::as_writable_bytes(std::span(&size, 1)), 0), exit_code::kTryAgain);
  text.resize(size);
  PITCREW_END(comm_.broadcast(std::as_writable_bytes(std::span(text)), 0), exit_code::kTryAgain);
  if (!is_first()) PITCREW_END(plans->use(text), exit_code::kTryAgain);
  return {};
}

End Run::import_weights() {
  const ParameterLayout layout = parameter_layout<float>(config_.model);
  std::vector<float> params(layout.flat_elements<float>());
  const Status read = hugging_face::read_weights(*services_.files, config_.init_from, config_.model, layout, params);
  if (!read) {
    const bool data = read.error().code == Code::kDataLoss || read.error().code == Code::kNotFound;
    return Failure{read.error(), data ? exit_code::kBadData : exit_code::kBadConfiguration};
  }
  engine_->set_parameters(params);
  print("weights from " + config_.init_from);
  return {};
}

End Run::open_data() {
  auto source = config_.text ? open_text(*config_.text) : open_bin(config_.bin, config_.model.tokens());
  if (!source) return Failure{source.error(), exit_code::kBadData};
  source_ = std::move(*source);
  auto order =
      SampleOrder::make({source_->fingerprint(), source_->tokens(), config_.tokens, config_.held_out, config_.seed});
  if (!order) return Failure{order.error(), exit_code::kBadData};
  order_.emplace(std::move(*order));
  return {};
}

// A rank with another configuration or other data would train something else without anybody noticing.
End Run::agree() {
  struct Card {
    char config[16];
    char data[16];
  };
  Card mine;
  run_hash(config_).copy(mine.config, sizeof mine.config);
  source_->fingerprint().copy(mine.data, sizeof mine.data);
  std::vector<Card> all(comm_.size());
  PITCREW_END(comm_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))),
              exit_code::kTryAgain);
  for (uint32_t rank = 0; rank < all.size(); ++rank) {
    const bool same_config = std::string_view(all[rank].config, 16) == std::string_view(all[0].config, 16);
    const bool same_data = std::string_view(all[rank].data, 16) == std::string_view(all[0].data, 16);
    if (same_config && same_data) continue;
    return Failure{Error(Code::kInvalidArgument, "rank " + std::to_string(rank) + " has another " +
                                                     (same_config ? "dataset" : "configuration") +
                                                     " than rank 0; all ranks must read the same files"),
                   same_config ? exit_code::kBadData : exit_code::kBadConfiguration};
  }
  return {};
}

End Run::restore() {
  services_.page->set_phase(page::Phase::kRestoring);
  uint64_t claim = 0;
  bool resumed = false;
  Json plans, trained;
  if (!checkpoint().path.empty() || !environment_.memory.empty()) {
    copier_ = std::make_unique<DeviceCopier>(engine_->device(), engine_->stream());
    CheckpointerSettings settings;
    settings.checkpoint = checkpoint();
    settings.job = environment_.job;
    settings.epoch = environment_.epoch;
    settings.slot = environment_.slot;
    settings.local_rank = environment_.local_rank;
    settings.local_ranks = environment_.local_size;
    settings.memory_folder = environment_.memory;
    CheckpointerServices services;
    services.files = services_.files;
    services.clock = services_.clock;
    services.comm = services_.checkpoints;
    services.launcher = services_.launcher;
    services.copier = copier_.get();
    services.page = services_.page;
    services.log = services_.log;
    if (is_first()) services.before_commit = [this] { return log_ ? log_->settle() : Status(); };
    const RunDescription description{run_hash(config_), source_->fingerprint(),
                                     Json::parse(engine_->device().numerics())};
    auto opened = Checkpointer::open(std::move(settings), std::move(services), engine_->state_tensors(), description);
    if (!opened) {
      const Code code = opened.error().code;
      const bool hopeless = code == Code::kInvalidArgument || code == Code::kUnsupported;
      return Failure{opened.error(), hopeless ? exit_code::kBadConfiguration : exit_code::kTryAgain};
    }
    checkpointer_ = std::move(*opened);
    claim = checkpointer_->claim();
    if (const std::string why = checkpointer_->memory_off_reason(); !why.empty())
      print("memory checkpoints are off: " + why);

    auto restored = checkpointer_->restore(environment_.resume);
    if (!restored) {
      const Code code = restored.error().code;
      return Failure{restored.error(), code == Code::kDataLoss          ? exit_code::kBadData
                                       : code == Code::kInvalidArgument ? exit_code::kBadConfiguration
                                                                        : exit_code::kTryAgain};
    }
    if (*restored) {
      const Restored& from = **restored;
      if (!from.state.contains("order")) {
        return Failure{
            Error(Code::kDataLoss, "the checkpoint of step " + std::to_string(from.step.value) +
                                       " has no sample order in its state; it was not written by pitcrew-train"),
            exit_code::kBadData};
      }
      PITCREW_END_ASSIGN(samples_, order_->sample_of(from.state["order"]), exit_code::kBadData);
      step_ = from.step;
      engine_->publish();
      resumed = true;
      plans = from.state.value("plans", Json());
      trained = from.state.value("trained", Json());
      for (const std::string& damaged : from.damaged) print("damaged checkpoint: " + damaged);
      print("resuming from step " + std::to_string(step_.value) + " (" + std::string(page::to_string(from.source)) +
            ")" + (from.bit_for_bit ? "" : ", not bit for bit: " + from.why_not));
    }
  }
  if (!resumed && !config_.init_from.empty()) {
    if (auto failed = import_weights()) return failed;
  }
  if (auto failed = agree_on_plans(&plans)) return failed;
  if (checkpointer_ && checkpoint().every_auto) {
    const Duration before = trained.is_number_unsigned() ? seconds(trained.get<int64_t>()) : seconds(0);
    schedule_.emplace(plan_.ranks(), claim > 0 ? claim - 1 : 0, before, services_.clock->now());
  }
  if (is_first() && !checkpoint().path.empty()) {
    const EpochNumber epoch = environment_.managed ? environment_.epoch : EpochNumber(claim);
    PITCREW_END_ASSIGN(log_, StepLog::open(*services_.files, checkpoint().path, step_, epoch), exit_code::kTryAgain);
    if (!log_->gap().empty()) services_.log.warning("the step log has a gap", {{"gap", log_->gap()}});
  }
  return {};
}

End Run::steps() {
  services_.page->set_phase(page::Phase::kFirstStep);
  const LaneRange lanes = plan_.of(rank_);
  BatchLoader loader(
      *source_, *order_, *services_.clock,
      {config_.sequences, uint64_t{lanes.first} * plan_.micro(), uint64_t{lanes.count()} * plan_.micro()}, samples_);
  line_time_ = services_.clock->now();
  line_step_ = step_;
  bool stop = false;
  while (step_.value < config_.steps && !stop) {
    if (auto failed = one_step(loader, stop)) return failed;
  }
  const bool done = step_.value >= config_.steps;
  // A checkpoint of the last step was saved after its evaluation.
  if (done && trained_ && config_.held_out > 0 && evaluated_ != step_) {
    if (auto failed = evaluate()) return failed;
  }
  return finish(!done);
}

End Run::one_step(BatchLoader& loader, bool& stop) {
  const Instant began = services_.clock->now();
  const Duration waited_before = loader.waited();
  const Step next = step_.next();
  PITCREW_END_ASSIGN(const Batch batch, loader.next(), exit_code::kBadData);

  StepReport mine;
  mine.losses = engine_->compute(batch.tokens);
  mine.stop = asked_to_stop();
  mine.save_request = services_.page->save_requested();
  if (checkpointer_) {
    const SaveKinds due = checkpointer_->due(next);
    mine.save_durable = due.durable || (schedule_ && schedule_->due(services_.clock->now()));
    mine.save_memory = due.memory;
  }
  const uint64_t digest = engine_->own_digest();
  PITCREW_END_ASSIGN(const StepReport shared, share(comm_, plan_, mine), exit_code::kTryAgain);
  PITCREW_END(engine_->reduce(reducer_), exit_code::kTryAgain);

  const auto tokens = static_cast<double>(config_.tokens_per_step());
  const double loss = tree_sum(shared.losses) / tokens;
  AdamWSettings optimizer = config_.optimizer;
  optimizer.learning_rate = learning_rate(config_, next.value);
  const GradientSummary summary = engine_->update(tokens, config_.clip, optimizer, next.value, [&] {
    if (!checkpointer_) return;
    const Instant held = services_.clock->now();
    checkpointer_->hold_mutation();
    paused_ += services_.clock->now() - held;
  });
  if (summary.finite == 0 || !std::isfinite(loss)) return nonfinite(batch, shared, mine.losses, digest, summary);

  step_ = next;
  samples_ += config_.sequences;
  if (log_) PITCREW_END(log_->append(step_, loss, samples_), exit_code::kTryAgain);
  services_.page->step_done(step_, samples_, loss);
  if (!trained_) services_.page->set_phase(page::Phase::kTraining);
  trained_ = true;
  const double seconds = to_seconds(services_.clock->now() - began);
  const Duration waited = loader.waited() - waited_before;
  services_.page->set_gauge("data_wait_seconds", to_seconds(waited));
  report_step(loss, seconds > 0 ? tokens / seconds : 0, summary, loader.waited());

  if (config_.evaluate_every > 0 && step_.value % config_.evaluate_every == 0) {
    if (auto failed = evaluate()) return failed;
  }
  // The end saves what it stops at; nothing is begun for it here.
  stop = shared.stop;
  if (!stop && step_.value < config_.steps) save(shared);
  report_saves();
  return {};
}

void Run::report_step(double loss, double rate, const GradientSummary& summary, Duration waited) {
  services_.page->set_gauge("loss", loss);
  services_.page->set_gauge("tokens_per_second", rate);
  services_.page->set_gauge("gradient_norm", summary.norm);
  services_.page->set_gauge("learning_rate", learning_rate(config_, step_.value));
  if (!is_first() || (step_.value % config_.log_every != 0 && step_.value != config_.steps)) return;
  const Instant now = services_.clock->now();
  const double seconds = to_seconds(now - line_time_);
  const auto steps = static_cast<double>(step_.value - line_step_.value);
  const double tokens = steps * static_cast<double>(config_.tokens_per_step());
  print(formatted("step %llu/%llu  loss %.4f  norm %.3f  lr %.2e  %.1f k tokens/s  %.0f ms/step  data wait %.2f %%",
                  static_cast<unsigned long long>(step_.value), static_cast<unsigned long long>(config_.steps), loss,
                  summary.norm, learning_rate(config_, step_.value), seconds > 0 ? tokens / seconds / 1000 : 0.0,
                  1000 * seconds / steps, seconds > 0 ? 100 * to_seconds(waited - line_waited_) / seconds : 0.0));
  line_time_ = now;
  line_step_ = step_;
  line_waited_ = waited;
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

End Run::evaluate() {
  services_.page->set_phase(page::Phase::kEvaluating);
  const auto sequences = static_cast<uint32_t>(config_.held_out);
  PITCREW_END_ASSIGN(const LanePlan plan, LanePlan::make(sequences, plan_.micro(), plan_.ranks()),
                     exit_code::kBadConfiguration);
  StepReport mine;
  const LaneRange lanes = plan.of(rank_);
  for (uint32_t lane = lanes.first; lane < lanes.end; ++lane) {
    PITCREW_END_ASSIGN(const auto tokens, read_held_out(*source_, *order_, uint64_t{lane} * plan.micro(), plan.micro()),
                       exit_code::kBadData);
    mine.losses.push_back(engine_->evaluate(tokens));
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

// The same step is computed again from the same state. Other bits: this machine is suspect. The same bits, and the same
// again in a later epoch: program or data.
End Run::nonfinite(const Batch& batch, const StepReport& shared, const std::vector<double>& own_losses,
                   uint64_t own_digest, const GradientSummary& summary) {
  const std::string what = "step " + std::to_string(step_.value + 1) + ": loss or gradient is not finite";
  const std::vector<double> again = engine_->compute(batch.tokens);
  const bool same_losses =
      again.empty() || std::memcmp(again.data(), own_losses.data(), again.size() * sizeof(double)) == 0;
  const std::byte differs{static_cast<unsigned char>(!(same_losses && engine_->own_digest() == own_digest))};
  std::vector<std::byte> all(comm_.size());
  PITCREW_END(comm_.all_gather(std::span(&differs, 1), all), exit_code::kTryAgain);
  const auto tell = [&](const std::string& message) {
    services_.log.error(message);
    if (services_.launcher == nullptr) return;
    const auto told =
        services_.launcher->call(launcher_socket::Evidence{Rank(rank_), "nonfinite", message, std::nullopt});
    if (!told) services_.log.warning("the launcher was not told", {{"error", told.error().message}});
  };
  if (differs != std::byte{0}) {
    const std::string message =
        what + ", and computing it again on rank " + std::to_string(rank_) + " gave other bits: suspect hardware";
    tell(message);
    return Failure{Error(Code::kInternal, message), exit_code::kReplaceNode};
  }
  for (uint32_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] == std::byte{0}) continue;
    blamed_ = Rank(rank);
    return Failure{
        Error(Code::kInternal, what + "; rank " + std::to_string(rank) + " gave other bits when it computed again"),
        exit_code::kTryAgain};
  }

  std::byte repeated{0};
  const uint64_t first = samples_, last = samples_ + config_.sequences - 1;
  const std::string samples = "samples " + std::to_string(first) + " to " + std::to_string(last);
  if (is_first()) {
    const auto noted = note_nonfinite(*services_.files, checkpoint().path,
                                      {step_.next(), loss_bits(tree_sum(shared.losses)), loss_bits(summary.norm)});
    if (!noted) services_.log.warning("the step could not be noted", {{"error", noted.error().message}});
    repeated = std::byte{noted && *noted};
    tell(what + " (" + samples + "), with the same bits " +
         (repeated == std::byte{0} ? "when computed again" : "as in an earlier epoch"));
  }
  PITCREW_END(comm_.broadcast(std::span(&repeated, 1), 0), exit_code::kTryAgain);
  if (repeated == std::byte{0})
    return Failure{Error(Code::kInternal, what + " (" + samples + "); try again elsewhere"), exit_code::kTryAgain};
  return Failure{Error(Code::kDataLoss,
                       what + " with the same bits as in an earlier epoch: the program or the data are at fault (" +
                           samples + "); lower optimizer.learningRate or look at these samples"),
                 exit_code::kBadData};
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

}  // namespace

Outcome train(const TrainConfig& config, const RankEnvironment& environment, TrainerServices services) {
  const auto plan = LanePlan::make(config.sequences, config.micro, services.training->size());
  if (!plan) return {exit_code::kBadConfiguration, plan.error().message, std::nullopt};
  return Run(config, environment, std::move(services), *plan).run();
}

}  // namespace pitcrew::trainer
