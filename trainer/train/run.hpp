#pragma once

#include <atomic>
#include <bit>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/device_copier.hpp"
#include "trainer/checkpoint/save_interval.hpp"
#include "trainer/comm/observed_comm.hpp"
#include "trainer/cuda/library.hpp"
#include "trainer/data/batch_loader.hpp"
#include "trainer/parallel/nccl_groups.hpp"
#include "trainer/train/failure.hpp"
#include "trainer/train/memory_plan.hpp"
#include "trainer/train/replica_check.hpp"
#include "trainer/train/step_log.hpp"
#include "trainer/train/step_meter.hpp"
#include "trainer/train/step_replay.hpp"
#include "trainer/train/step_report.hpp"
#include "trainer/train/trainer.hpp"

namespace pitcrew::trainer {

inline std::string formatted(const char* format, auto... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

inline std::string loss_bits(double loss) { return hex64(std::bit_cast<uint64_t>(loss)); }

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

// One rank's training, from its start to its end: what train() is made of. How it begins is in run_start.cpp, its loop
// in trainer.cpp, and what it does about results that can't be right in run_health.cpp. Of the training thread.
class Run {
 public:
  Run(const TrainConfig& config, const RankEnvironment& environment, TrainerServices services, const LanePlan& plan,
      const Mesh& mesh)
      : config_(config),
        environment_(environment),
        services_(std::move(services)),
        plan_(plan),
        mesh_(mesh),
        lanes_(plan_.of(mesh_.data_rank())),
        rank_(services_.training->rank()),
        comm_(*services_.training, observer(), track("")),
        spikes_(config.spike, config.model.tokens()) {}

  // What the engine reduces ends before the reducer does.
  ~Run() {
    if (engine_) engine_->reduce_early(nullptr);
  }

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
    if (nccl_groups_) nccl_groups_->abort();
    if (nccl_) nccl_->abort();
    if (groups_) groups_->abort();
    return outcome;
  }

 private:
  End start();
  End agree();
  End open_engine();
  // A GPU with its kernels, and the masters that fit there; null: this rank trains on the CPU.
  End open_gpu(std::optional<cuda::Compute>& gpu, Masters& masters);
  End choose_attention_engine(cuda::Compute& gpu, PlanRequest& request);
  Result<Masters> agree_on_masters(Masters mine);
  EngineSettings engine_settings();
  End open_groups();
  End agree_on_nccl();
  End open_nccl();
  Result<std::shared_ptr<const nccl::Api>> find_nccl() const;
  bool nccl_required() const { return config_.backend == CommBackend::kNccl || config_.reduce == CommReduce::kNccl; }
  // Of the mesh's groups.
  Comm& moves(MeshTraffic traffic) { return nccl_groups_ ? (*nccl_groups_)[traffic] : (*groups_)[traffic]; }
  End open_exchange();
  bool keeps_checkpoints() const { return !checkpoint().path.empty() || !environment_.memory.empty(); }
  End open_copier();
  End open_checkpointer();
  // Reads what there is to go on from, while ranks meet.
  End read_checkpoint(std::optional<Restored>& restored);
  End meet();
  End take_over(const Restored& from);
  // Until what a snapshot still needs is copied; counted as a stall.
  void hold(const std::function<void()>& until_copied);
  End agree_on_plans(const Json* kept);
  End import_weights();
  End open_data();
  End restore();
  End steps();
  // A step whose update the device was given, and of which it isn't known yet whether it was held back.
  struct Pending {
    Step step;
    Batch batch;
    OwnResult own;
    StepReport shared;
    double loss = 0;
    double loss_limit = 0;
    StepMeasure measure;
    Duration waited{0};  // for data, since the start
  };
  End one_step(BatchLoader& loader);
  // Ends the pending step: what the device found, and all that follows from it. `stop_` says whether it was the last.
  End settle();
  bool due_now(const Pending& pending) const;
  bool compare_due(const Pending& pending) const;
  StepReport wishes(Step next);
  void update(Step next, bool believed);
  End after_step(const Pending& done);
  End suspect(Pending pending, const GradientSummary& summary);
  Result<std::optional<ReplicaDifference>> find_difference();
  // Of the tensors that all tensor ranks hold.
  uint64_t common_digest();
  End compare_states();
  void tell(const launcher_socket::Evidence& evidence);
  void open_replay();
  End evaluate();
  End finish(bool stopped);
  void save(const StepReport& shared);
  void report_saves();
  void report_step(const Pending& done, const GradientSummary& summary);
  // What `work` takes is this part's.
  template <typename F>
  auto timed(StepPart part, F&& work) {
    const Instant began = services_.clock->now();
    auto result = work();
    meter_->add(part, services_.clock->now() - began);
    return result;
  }

  Json state() const {
    Json state = {{"order", order_->state(samples_)}, {"config", canonical(config_)}, {"recent", spikes_.state()}};
    if (ProductPlans* plans = engine_->plans(); plans != nullptr) state["plans"] = plans->text();
    if (schedule_) state["trained"] = static_cast<uint64_t>(to_seconds(schedule_->trained(services_.clock->now())));
    return state;
  }
  Json numerics() const;
  // Whether the same samples give the same bits on other ranks.
  bool reproducible() const { return !nccl_adds_; }
  FlightRecorder::Track* track(const char* name) const {
    return services_.recorder == nullptr ? nullptr : &services_.recorder->track(name);
  }
  // Lanes differ in number from rank to rank, so what tensor ranks say for each is not counted: whoever waits says so
  // under the number of the collective before.
  ObservedComm::Observer uncounted() {
    return {[this](uint64_t) { services_.page->enter_collective(last_collective_); },
            [this] { services_.page->leave_collective(); }};
  }
  void enter_collective(uint64_t sequence) {
    last_collective_ = sequence;
    services_.page->enter_collective(sequence);
  }
  ObservedComm::Observer observer() {
    return {[this](uint64_t sequence) { enter_collective(sequence); },
            [page = services_.page] { page->leave_collective(); }};
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
    if (nccl_ && nccl_->lost_peer()) return Rank(*nccl_->lost_peer());
    if (nccl_groups_ && nccl_groups_->lost_peer()) return Rank(*nccl_groups_->lost_peer());
    for (const Comm* comm : {services_.training, services_.checkpoints}) {
      if (comm == nullptr) continue;
      if (const auto lost = comm->lost_peer()) return Rank(*lost);
    }
    if (const auto lost = groups_ ? groups_->lost_peer() : std::nullopt) return Rank(*lost);
    return std::nullopt;
  }
  // Ranks that hold the same part of the state.
  Comm& replicas() { return replica_comm_ ? *replica_comm_ : comm_; }

  const TrainConfig& config_;
  const RankEnvironment& environment_;
  TrainerServices services_;
  const LanePlan plan_;
  const Mesh mesh_;
  const LaneShare lanes_;
  const uint32_t rank_;
  std::atomic<uint64_t> last_collective_{0};  // that is counted; read by the threads that watch streams
  ObservedComm comm_;
  std::shared_ptr<Device> device_;                         // the engine's; NCCL's communicators need it to their end
  std::string gpu_identity_;                               // empty: on a CPU
  std::shared_ptr<const nccl::Api> api_;                   // null: nothing goes through NCCL
  std::unique_ptr<NcclComm> nccl_;                         // of all ranks, where the mesh is of replicas only; else
  std::optional<MeshComms> groups_;                        // in the hosts' memory, and
  std::optional<MeshComms> nccl_groups_;                   // in the devices'
  std::optional<ObservedComm> replica_comm_;               // in the hosts' memory
  std::optional<ObservedComm> early_comm_;                 // the same, used by the engine's thread
  std::optional<ObservedComm> gather_comm_, reduce_comm_;  // used by the engine's threads
  std::optional<ObservedComm> tensor_comm_;                // used on the device's stream; none where NCCL moves

  std::unique_ptr<TokenSource> source_;
  std::optional<SampleOrder> order_;
  std::unique_ptr<LaneEngine> engine_;
  std::optional<ObservedComm> device_comm_;  // NCCL's of the replicas; none: gradients go through replicas()
  bool nccl_adds_ = false;
  std::optional<GradientReducer> reducer_;
  std::unique_ptr<DeviceCopier> copier_;
  std::optional<StepLog> log_;  // outlives the checkpointer, whose threads wait for it
  std::unique_ptr<Checkpointer> checkpointer_;
  SpikeRule spikes_;
  std::optional<StepReplay> replay_;
  std::optional<StepMeter> meter_;
  double peak_flops_ = 0;  // of this rank's device; 0: unknown
  uint64_t memory_ = 0;    // of its memory plan; 0: on a CPU
  uint64_t cudnn_ = 0;     // the version that computes attention; 0: own kernels
  std::optional<SaveSchedule> schedule_;
  Duration paused_{0};  // by the save that is under way
  Instant save_began_;

  std::optional<Pending> pending_;
  bool stop_ = false;
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

}  // namespace pitcrew::trainer
