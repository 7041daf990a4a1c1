#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/environment.hpp"
#include "lib/base/json.hpp"
#include "lib/base/log.hpp"
#include "trainer/data/token_source.hpp"
#include "trainer/kernels/attention_engine.hpp"
#include "trainer/model/config.hpp"
#include "trainer/model/model.hpp"
#include "trainer/model/parameters.hpp"
#include "trainer/parallel/mesh.hpp"
#include "trainer/train/spike_rule.hpp"

namespace pitcrew::trainer {

enum class TrainDevice {
  kAuto,  // a GPU where there is one
  kCpu,
  kCuda,
};

// What carries gradients between ranks that hold the same parameters.
enum class CommBackend {
  kAuto,  // NCCL where every rank has a GPU of its own and the library; else TCP
  kTcp,   // through the hosts' memory
  kNccl,
};

// Who adds them.
enum class CommReduce {
  kOrdered,  // the trainer, in one fixed tree over lanes
  kNccl,     // NCCL, in an order of its own: not reproducible
};

// A training run, as its YAML file describes it; docs/trainer.md is the reference. Defaults are here.
struct TrainConfig {
  ModelConfig model;

  uint32_t sequences = 0;  // batch: per step, over all ranks
  uint32_t micro = 1;      // sequences computed at once
  uint32_t passes = 1;     // of them that make a lane
  uint32_t tokens = 0;     // predictions per sequence; default the model's context

  uint64_t steps = 0;
  uint64_t seed = 1;

  AdamWSettings optimizer;
  // How masters are kept where weights are BF16; the same bits result.
  std::optional<Masters> master;  // absent: float where that fits, else remainder
  double clip = 1.0;              // global norm; 0: no clipping
  uint64_t warmup = 0;            // steps
  double decay_to = 0.1;          // of the learning rate, at the last step

  std::optional<TextSettings> text;
  std::vector<std::string> bin;
  uint64_t held_out = 0;        // samples
  uint64_t evaluate_every = 0;  // steps; 0: only at the end

  CheckpointSettings checkpoint;  // PITCREW_CHECKPOINT takes its place
  double bounce = 0.25;           // of a rank's slice of a checkpoint: what may wait for its copy in the GPU's memory

  GridSettings parallel;  // how the ranks divide the work

  uint32_t threads = 1;  // per rank
  TrainDevice device = TrainDevice::kAuto;
  double peak_tflops = 0;  // of a rank's device, for MFU; 0: by the GPU's name
  Recompute recompute;     // changes memory and speed, no bits
  // Of a GPU; absent: cuDNN where it can be used, else the own kernels.
  std::optional<AttentionEngine> attention;
  std::string init_from;  // a folder of `transformers` whose weights are begun with; empty: random
  SpikeSettings spike;
  uint64_t compare_every = 50;  // steps between comparisons of all replicas' states; 0: only before durable saves
  uint64_t log_every = 10;      // steps per line on stdout
  CommBackend backend = CommBackend::kAuto;
  CommReduce reduce = CommReduce::kOrdered;
  // Whether pieces of the replicas' sums may lie on the GPUs: NCCL moves them, and we add.
  bool device_pieces() const { return backend != CommBackend::kTcp && reduce == CommReduce::kOrdered; }
  LogFormat log_format = LogFormat::kPlain;
  Duration connect_timeout = minutes(5);
  Duration collective_timeout = minutes(30);
  Duration lost_peer_wait = minutes(30);  // for the launcher's word, after a peer was lost

  uint64_t tokens_per_step() const { return uint64_t{sequences} * tokens; }
};

// Reads and validates; relative paths are taken from `folder`. Everything that is wrong becomes a problem with its path
// and remedy; nothing is returned then.
std::optional<TrainConfig> read_train_config(const Json& json, const std::string& folder, Problems& problems);

// What the trained weights depend on, defaults filled in, keys sorted: model, batch, optimizer, schedule, seed,
// held-out split. Not where data and checkpoints lie, nor how it is run.
Json canonical(const TrainConfig& config);
// XXH3 of canonical()'s text: the run's fingerprint.
std::string run_hash(const TrainConfig& config);

// For step 1, 2, …: warm-up from 0, then half a cosine down to decay_to at the last step. The same on every machine.
double learning_rate(const TrainConfig& config, uint64_t step);

}  // namespace pitcrew::trainer
