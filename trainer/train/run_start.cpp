#include <algorithm>
#include <cstring>

#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/tensor_part.hpp"
#include "trainer/train/hugging_face.hpp"
#include "trainer/train/memory_plan.hpp"
#include "trainer/train/run.hpp"
#include "trainer/train/side_by_side.hpp"

namespace pitcrew::trainer {

End Run::start() {
  if (auto failed = open_data()) return failed;
  if (auto failed = agree()) return failed;
  if (auto failed = open_engine()) return failed;
  if (is_first()) {
    services_.page->set_totals(config_.steps, config_.tokens);
    const std::string ranks =
        mesh_.replicas_only() ? std::to_string(plan_.ranks()) + " ranks" : to_string(mesh_.grid());
    print(formatted("%llu parameters, %s; %s, %u lanes of %u × %u tokens, %llu steps",
                    static_cast<unsigned long long>(config_.model.parameters()), source_->describe().c_str(),
                    ranks.c_str(), plan_.lanes(), plan_.lane_sequences(), config_.tokens,
                    static_cast<unsigned long long>(config_.steps)));
  }
  return {};
}

EngineSettings Run::engine_settings() {
  EngineSettings settings{config_.model, config_.tokens, plan_, mesh_.data_rank(), config_.recompute, {}};
  if (mesh_.grid().tensor > 1) settings.tensor = tensor_comm_ ? &*tensor_comm_ : &moves(MeshTraffic::kTensor);
  if (groups_) {
    settings.gather = &*gather_comm_;
    settings.reduce = &*reduce_comm_;
    settings.waits = [this](bool begins) {
      if (begins) {
        enter_collective(++*comm_.sequence());
      } else {
        services_.page->leave_collective();
      }
    };
  }
  settings.queued = [page = services_.page](uint64_t number) { page->set_gpu_queued(number); };
  settings.reached = [page = services_.page](uint64_t number) { page->set_gpu_counter(number); };
  settings.before_write = [this](size_t tensor) { hold([&] { checkpointer_->hold_mutation(tensor); }); };
  if (services_.fault != nullptr) {
    settings.after_lane = [fault = services_.fault](uint32_t lane, std::span<float> gradient) {
      fault->after_lane(lane, gradient);
    };
  }
  return settings;
}

// The device first: NCCL's communicators stand on it, and the engine on these.
End Run::open_engine() {
  peak_flops_ = config_.peak_tflops * 1e12;
  std::optional<cuda::Compute> gpu;
  Masters masters = Masters::kFloat;
  if (auto failed = open_gpu(gpu, masters)) return failed;
  std::unique_ptr<Kernels<float>> kernels;
  if (gpu) {
    device_ = std::move(gpu->device);
  } else {
    CpuDeviceOptions options = services_.device;
    options.threads = config_.threads;
    auto cpu = std::make_shared<CpuDevice>(std::move(options));
    kernels = create_cpu_kernels<float>(*cpu);
    device_ = std::move(cpu);
  }
  if (auto failed = agree_on_nccl()) return failed;
  if (auto failed = open_groups()) return failed;
  EngineSettings settings = engine_settings();
  settings.masters = masters;
  auto made = gpu ? LaneEngine::create<BF16>(std::move(settings), device_, std::move(gpu->kernels), gpu->plans)
                  : LaneEngine::create<float>(std::move(settings), device_, std::move(kernels));
  PITCREW_END_ASSIGN(engine_, std::move(made), exit_code::kBadConfiguration);
  return {};
}

End Run::open_gpu(std::optional<cuda::Compute>& opened, Masters& masters) {
  if (config_.device == TrainDevice::kCpu) return {};
  PITCREW_END_ASSIGN(const ModelConfig part, tensor_part(config_.model, mesh_.grid().tensor),
                     exit_code::kBadConfiguration);
  const uint64_t workspace = kernel_workspace_bytes(part, {plan_.micro(), config_.tokens});
  auto gpu = cuda::open({static_cast<int>(environment_.local_rank), workspace});
  if (!gpu && config_.device == TrainDevice::kCuda) return Failure{gpu.error(), exit_code::kBadConfiguration};
  if (!gpu && gpu.error().code != Code::kNotFound) print("on the CPU: " + gpu.error().message);
  if (!gpu && config_.attention == AttentionEngine::kCudnn) {
    return Failure{
        Error(Code::kUnsupported, "attention: cudnn needs a GPU, but this one trains on the CPU; set it to auto"),
        exit_code::kBadConfiguration};
  }
  if (!gpu) return {};
  PITCREW_END(cuda::problems(config_.model), exit_code::kBadConfiguration);
  // The kernels have their workspace, and the context is made: what is free is for the rest.
  PlanRequest request{config_.model, config_.sequences, config_.micro,    config_.tokens,
                      mesh_.grid(),  Numbers::kMixed,   config_.recompute};
  if (keeps_checkpoints()) request.bounce = config_.bounce;
  request.device_pieces = config_.device_pieces();
  request.passes = config_.passes;
  if (auto failed = choose_attention_engine(*gpu, request)) return failed;
  PITCREW_END_ASSIGN(request, choose_masters(request, config_.master, gpu->total_bytes), exit_code::kBadConfiguration);
  PITCREW_END_ASSIGN(request.masters, agree_on_masters(request.masters), exit_code::kTryAgain);
  masters = request.masters;
  PITCREW_END_ASSIGN(const MemoryPlan plan, memory_plan(request), exit_code::kBadConfiguration);
  print(formatted("%s: %.1f of %.1f GB will be used%s", gpu->name.c_str(), static_cast<double>(plan.bytes()) / 1e9,
                  static_cast<double>(gpu->total_bytes) / 1e9,
                  request.masters == Masters::kRemainder ? ", masters as remainders" : ""));
  PITCREW_END(check_fits(request, gpu->total_bytes), exit_code::kBadConfiguration);
  memory_ = plan.bytes();
  gpu_identity_ = gpu->identity;
  if (peak_flops_ == 0) peak_flops_ = peak_tflops(gpu->name).value_or(0) * 1e12;
  opened.emplace(std::move(*gpu));
  return {};
}

// Where one rank's GPU is too small for whole masters, all keep halves: replicas compare the bits of what they keep.
Result<Masters> Run::agree_on_masters(Masters mine) {
  std::vector<Masters> all(comm_.size());
  PITCREW_TRY(comm_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));
  const bool halves = std::find(all.begin(), all.end(), Masters::kRemainder) != all.end();
  return halves ? Masters::kRemainder : Masters::kFloat;
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
  if (is_first() || engine_->collective()) {
    plans->set_tuning(true);
    const std::vector<int32_t> tokens(size_t{lanes_.count()} * plan_.lane_sequences() * (config_.tokens + size_t{1}));
    PITCREW_END(engine_->compute(tokens), exit_code::kTryAgain);
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
    uint32_t shards, tensor;
  };
  Card mine;
  run_hash(config_).copy(mine.config, sizeof mine.config);
  source_->fingerprint().copy(mine.data, sizeof mine.data);
  mine.shards = config_.parallel.shards;
  mine.tensor = config_.parallel.tensor;
  std::vector<Card> all(comm_.size());
  PITCREW_END(comm_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))),
              exit_code::kTryAgain);
  for (uint32_t rank = 0; rank < all.size(); ++rank) {
    const bool same_grid = all[rank].shards == all[0].shards && all[rank].tensor == all[0].tensor;
    const bool same_config = std::string_view(all[rank].config, 16) == std::string_view(all[0].config, 16) && same_grid;
    const bool same_data = std::string_view(all[rank].data, 16) == std::string_view(all[0].data, 16);
    if (same_config && same_data) continue;
    return Failure{Error(Code::kInvalidArgument, "rank " + std::to_string(rank) + " has another " +
                                                     (same_config ? "dataset" : "configuration") +
                                                     " than rank 0; all ranks must read the same files"),
                   same_config ? exit_code::kBadData : exit_code::kBadConfiguration};
  }
  return {};
}

End Run::open_copier() {
  SnapshotPlan plan;
  if (!engine_->device().host_memory()) {
    const std::vector<StateTensor> tensors = engine_->state_tensors();
    uint64_t bytes = 0;
    for (const StateTensor& tensor : tensors) bytes += tensor.bytes();
    plan =
        plan_snapshot(bytes, tensors.size(), mesh_.grid().replicas, config_.bounce, tensors[0].remainders != nullptr);
  }
  PITCREW_END_ASSIGN(copier_,
                     DeviceCopier::create(engine_->device(), engine_->stream(), engine_->state_kernels(), plan),
                     exit_code::kBadConfiguration);
  return {};
}

// Everything but the vote: claims the folder, and prepares the buffers.
End Run::open_checkpointer() {
  if (auto failed = open_copier()) return failed;
  CheckpointerSettings settings;
  settings.checkpoint = checkpoint();
  settings.job = environment_.job;
  settings.epoch = environment_.epoch;
  settings.slot = environment_.slot;
  settings.local_rank = environment_.local_rank;
  settings.local_ranks = environment_.local_size;
  if (!mesh_.replicas_only()) settings.holders = Holders{mesh_.at().replica, mesh_.grid().replicas};
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
  const RunDescription description{run_hash(config_), source_->fingerprint(), numerics()};
  auto opened = Checkpointer::open(std::move(settings), std::move(services), engine_->state_tensors(), description);
  if (!opened) {
    const Code code = opened.error().code;
    const bool hopeless = code == Code::kInvalidArgument || code == Code::kUnsupported;
    return Failure{opened.error(), hopeless ? exit_code::kBadConfiguration : exit_code::kTryAgain};
  }
  checkpointer_ = std::move(*opened);
  if (const std::string why = checkpointer_->memory_off_reason(); !why.empty())
    print("memory checkpoints are off: " + why);
  return {};
}

End Run::read_checkpoint(std::optional<Restored>& restored) {
  auto read = checkpointer_->restore(environment_.resume);
  if (read) {
    restored = std::move(*read);
    return {};
  }
  const Code code = read.error().code;
  return Failure{read.error(), code == Code::kDataLoss          ? exit_code::kBadData
                               : code == Code::kInvalidArgument ? exit_code::kBadConfiguration
                                                                : exit_code::kTryAgain};
}

// Where the sample order, the step and the judgement of spikes go on.
End Run::take_over(const Restored& from) {
  if (!from.state.contains("order")) {
    return Failure{Error(Code::kDataLoss, "the checkpoint of step " + std::to_string(from.step.value) +
                                              " has no sample order in its state; it was not written by pitcrew-train"),
                   exit_code::kBadData};
  }
  PITCREW_END_ASSIGN(samples_, order_->sample_of(from.state["order"]), exit_code::kBadData);
  step_ = from.step;
  // A checkpoint of an older version knows no recent losses.
  if (const Status read = spikes_.restore(from.state.value("recent", Json())); !read)
    services_.log.info("spikes are judged from here on", {{"why", read.error().message}});
  engine_->publish();
  for (const std::string& damaged : from.damaged) print("damaged checkpoint: " + damaged);
  print("resuming from step " + std::to_string(step_.value) + " (" + std::string(page::to_string(from.source)) + ")" +
        (from.bit_for_bit ? "" : ", not bit for bit: " + from.why_not));
  return {};
}

End Run::restore() {
  services_.page->set_phase(page::Phase::kRestoring);
  uint64_t claim = 0;
  std::optional<Restored> restored;
  if (keeps_checkpoints()) {
    if (auto failed = open_checkpointer()) return failed;
    claim = checkpointer_->claim();
    // Bytes come in by a stream and a communicator of their own.
    if (auto failed = side_by_side([&] { return read_checkpoint(restored); }, [this] { return meet(); },
                                   [this] { checkpointer_->abort(); }))
      return failed;
  } else if (auto failed = meet()) {
    return failed;
  }
  const bool resumed = restored.has_value();
  Json plans, trained;
  if (resumed) {
    if (auto failed = take_over(*restored)) return failed;
    plans = restored->state.value("plans", Json());
    trained = restored->state.value("trained", Json());
  }
  if (!resumed) engine_->init(config_.seed);
  if (!resumed && !config_.init_from.empty()) {
    if (auto failed = import_weights()) return failed;
  }
  if (auto failed = agree_on_plans(&plans)) return failed;
  if (checkpointer_ && checkpoint().every_auto) {
    const Duration before = trained.is_number_unsigned() ? seconds(trained.get<int64_t>()) : seconds(0);
    schedule_.emplace(comm_.size(), claim > 0 ? claim - 1 : 0, before, services_.clock->now());
  }
  if (is_first() && !checkpoint().path.empty()) {
    const EpochNumber epoch = environment_.managed ? environment_.epoch : EpochNumber(claim);
    PITCREW_END_ASSIGN(log_, StepLog::open(*services_.files, checkpoint().path, step_, epoch), exit_code::kTryAgain);
    if (!log_->gap().empty()) services_.log.warning("the step log has a gap", {{"gap", log_->gap()}});
  }
  return {};
}

}  // namespace pitcrew::trainer
