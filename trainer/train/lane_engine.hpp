#pragma once

#include <memory>
#include <span>
#include <vector>

#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"
#include "trainer/parallel/gradient_reducer.hpp"

namespace pitcrew::trainer {

// One rank's computing: the gradients of its lanes, added in the lanes' tree, and the optimizer's step. Each lane's
// gradient is computed from zero into a buffer of its own, so that what is added, and in which order, never depends on
// the number of ranks; log2(lanes of the rank) + 1 such buffers are enough.
//
// Owned and called by the training thread. Device memory is host memory here: this is the CPU's engine.
class LaneEngine {
 public:
  // What it needs in memory beside parameters and moments, before anything is allocated.
  static uint64_t gradient_buffers(const LanePlan& plan, uint32_t rank);
  static Result<std::unique_ptr<LaneEngine>> create(const ModelConfig& model, uint32_t tokens, const LanePlan& plan,
                                                    uint32_t rank, CpuDeviceOptions device);
  ~LaneEngine();

  CpuDevice& device() { return device_; }
  Stream& stream() { return *stream_; }
  ModelState<float>& state() { return state_; }
  uint64_t activation_bytes() const { return model_->activation_bytes(); }

  // Forward and backward over `tokens`, [lanes of the rank × micro][tokens + 1]. Returns each lane's sum of token
  // losses.
  std::vector<double> compute(std::span<const int32_t> tokens);
  // Adds what compute() left to that of all ranks. Collective.
  Status reduce(GradientReducer& reducer);
  // The optimizer's step number `step` with the reduced gradient; nothing changes where the norm isn't finite.
  // `before_update` is called when the gradient's summary is under way and before anything writes to the state.
  GradientSummary update(double tokens, double clip, const AdamWSettings& optimizer, uint64_t step,
                         const std::function<void()>& before_update);
  // XXH3 of this rank's own sums: tells whether computing again gave the same bits.
  uint64_t own_digest() const;

  // The sum of token losses of one lane of `micro` sequences.
  double evaluate(std::span<const int32_t> tokens);

 private:
  LaneEngine(CpuDeviceOptions device, uint32_t tokens, const LanePlan& plan, uint32_t rank);
  Status allocate(const ModelConfig& model);

  CpuDevice device_;
  std::unique_ptr<Kernels<float>> kernels_;
  std::unique_ptr<Stream> stream_;
  const LaneShape shape_;
  const LaneRange range_;
  const uint32_t lanes_;
  std::unique_ptr<Model<float>> model_;
  ModelState<float> state_;
  Buffer tokens_;
  Buffer losses_;      // a double per lane
  Buffer square_sum_;  // a double
  Buffer summary_;     // a GradientSummary
  std::vector<Arena> gradients_;
  std::vector<uint32_t> sums_;  // which gradient buffers hold the sums of this rank's subtrees, from left to right
};

}  // namespace pitcrew::trainer
