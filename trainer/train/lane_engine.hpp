#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/kernels/product_plans.hpp"
#include "trainer/kernels/state_kernels.hpp"
#include "trainer/model/model.hpp"
#include "trainer/parallel/gradient_reducer.hpp"

namespace pitcrew::trainer {

struct EngineSettings {
  ModelConfig model;
  uint32_t tokens = 0;  // predictions per sequence
  LanePlan plan;
  uint32_t rank = 0;  // of those that see different lanes
  Recompute recompute;
  // How far the device is: `queued` on the calling thread when it is given a piece of work (a lane, an update),
  // numbered from 1; `reached` in the order of its work, when it has come so far.
  std::function<void(uint64_t number)> queued = {}, reached = {};
  // For tests, where the device's memory is the host's: called on the stream's thread when a lane's gradient is there,
  // with the lane's number on this rank.
  std::function<void(uint32_t lane, std::span<float> gradient)> after_lane = {};
  Masters masters = Masters::kFloat;
  // Called by update() with the number of each of state_tensors() before it is written to: snapshots hold it back until
  // that tensor is copied.
  std::function<void(size_t tensor)> before_write = {};
  // Of the shard group, where plan.shards() is above 1: for weights, and for gradients. Each is used from one thread.
  Comm *gather = nullptr, *reduce = nullptr;
  // Before and after the calling thread waits for these.
  std::function<void(bool begins)> waits = {};
  // Of the ranks that share the model's width; null where there are none. Used on the stream's thread.
  Comm* tensor = nullptr;
};

// One rank's computing, where it holds everything (ShardedEngine: where it holds a shard): the gradients of its lanes,
// added in the lanes' tree, and the optimizer's step. Each lane's gradient is computed from zero into a buffer of its
// own, so that what is added, and in which order, never depends on the number of ranks; log2(lanes of the rank) + 1
// such buffers are enough.
//
// Owned and called by the training thread. On a CPU everything is float; on a GPU weights and activations are BF16,
// masters, moments and gradients float.
class LaneEngine {
 public:
  // What it needs in memory beside parameters and moments, before anything is allocated.
  static uint64_t gradient_buffers(const LanePlan& plan, uint32_t rank);
  static Result<std::unique_ptr<LaneEngine>> create_on_cpu(EngineSettings settings, CpuDeviceOptions device);
  // T: float or BF16. The communicators may need the device for as long as they live: whoever has them keeps it, too.
  template <typename T>
  static Result<std::unique_ptr<LaneEngine>> create(EngineSettings settings, std::shared_ptr<Device> device,
                                                    std::unique_ptr<Kernels<T>> kernels, ProductPlans* plans = nullptr);

  virtual ~LaneEngine() = default;
  // compute(), evaluate(), own_square_sum() and lane_square_sums() are collectives of several ranks; their errors are a
  // communicator's. Elsewhere they have none.
  virtual bool collective() const { return false; }
  virtual Device& device() = 0;
  virtual Stream& stream() = 0;

  // Parameters from the seed, moments zero. Done when it returns.
  virtual void init(uint64_t seed) = 0;
  // What checkpoints hold; addresses stay. After anybody else has written to it, publish().
  virtual std::vector<StateTensor> state_tensors() const = 0;
  virtual void publish() = 0;
  // For snapshots on a stream of their own; unset where the device's memory is the host's.
  virtual StateKernels state_kernels() { return {}; }
  // Whether update() calls EngineSettings::before_write; else before_update() has to hold for all tensors.
  virtual bool announces_writes() const { return false; }
  // Parameters from host memory, the layout's flat elements. Done when it returns.
  virtual void set_parameters(std::span<const float> params) = 0;
  // Of matrix products; null where there is nothing to choose.
  virtual ProductPlans* plans() = 0;

  // Forward and backward over `tokens`, [lanes of the rank × sequences of a lane][tokens + 1]. Returns each lane's sum
  // of token losses.
  virtual Result<std::vector<double>> compute(std::span<const int32_t> tokens) = 0;
  // For a reducer whose communicator moves the device's memory.
  virtual std::unique_ptr<PieceMemory> create_pieces() = 0;
  // From now on compute() gives `reducer` what is complete while it goes on, where the engine can, and reduce() waits
  // for the rest: compute() is a collective of all replicas, and nothing else may use the reducer's communicator from
  // its begin to the end of reduce(). Null: no more; what is under way is aborted.
  virtual void reduce_early(GradientReducer* reducer) = 0;
  // Adds what compute() left to that of all ranks. Collective.
  virtual Status reduce(GradientReducer& reducer) = 0;
  // The optimizer's step number `step` with the reduced gradient; nothing changes where the norm isn't finite or is
  // above `norm_limit` (a device-side flag gates the optimizer). `before_update` is called when the gradient's summary
  // is under way and before anything writes to the state.
  // Returns at once.
  virtual void update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
                      const std::function<void()>& before_update) = 0;
  // What the last update() found; waits until it has. After the next compute() that costs nothing.
  virtual GradientSummary updated() = 0;
  // XXH3 of this rank's own sums: tells whether computing again gave the same bits.
  virtual uint64_t own_digest() = 0;
  // The sum of squares of this rank's own sums, before reduce().
  virtual Result<double> own_square_sum() = 0;
  // The square of the gradient's norm of each lane of this rank alone, over the same `tokens` as compute(), whose sums
  // are gone afterwards: tells which samples made a step what it is.
  virtual Result<std::vector<double>> lane_square_sums(std::span<const int32_t> tokens) = 0;
  // XXH3 of each of state_tensors(), in their order: replicas that differ have gone apart.
  virtual std::vector<uint64_t> state_digests() = 0;
  // The sum of squares of one of state_tensors().
  virtual double state_square_sum(size_t tensor) = 0;

  // The sum of token losses of one lane of `micro` sequences. No tokens: others have a lane in this turn, this rank has
  // none; 0.
  virtual Result<double> evaluate(std::span<const int32_t> tokens) = 0;
};

}  // namespace pitcrew::trainer
