#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/base/result.hpp"
#include "trainer/device/device.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/model/config.hpp"
#include "trainer/model/parameters.hpp"
#include "trainer/model/units.hpp"
#include "trainer/parallel/tensor_group.hpp"
#include "trainer/tensor/arena.hpp"

namespace pitcrew::trainer {

// One micro-batch: `sequences` rows of `tokens` predictions, each row tokens + 1 token numbers long.
struct LaneShape {
  uint32_t sequences = 1;
  uint32_t tokens = 0;
  uint64_t predictions() const { return uint64_t{sequences} * tokens; }
  bool operator==(const LaneShape&) const = default;
};

// What happens to what a gradient buffer held before.
enum class Gradients { kOverwrite, kAdd };

// What the forward pass doesn't keep and the backward pass computes again, to the same bits.
struct Recompute {
  bool norms = false;       // what norms give
  bool activation = false;  // what GELU or SwiGLU gives
  bool block = false;       // everything of a block but its input
  bool operator==(const Recompute&) const = default;
};

// A GPT-2 or Llama decoder, forward and backward, written against Device and Kernels alone. Holds activations, no
// parameters. Every function enqueues on the stream and returns; results are there once the stream has passed. All
// pointers are device memory. Calls must come from one thread, and use one stream (they share the activations). T:
// float to train on CPUs, BF16 on GPUs, double to check gradients.
template <typename T>
class Model {
 public:
  virtual ~Model() = default;
  // Allocates activations for lanes of `largest`; kResourceExhausted names how much was needed. `tensor`: the ranks
  // that this model is shared with, who make the same calls; null for none. It outlives the model. kInvalidArgument
  // where heads, the MLP's width or the lane's predictions can't be dealt evenly to them.
  static Result<std::unique_ptr<Model>> create(const ModelConfig& config, LaneShape largest, Device& device,
                                               Kernels<T>& kernels, Recompute recompute = {},
                                               TensorGroup* tensor = nullptr);

  virtual const ModelConfig& config() const = 0;

  // Forward and backward of one lane. `tokens`: [sequences][tokens + 1] in [0, vocab). Writes or adds to `gradients`
  // the gradient of loss_scale × the SUM of the token losses, and to `loss` (one double) that sum, unscaled. Tensor
  // ranks get the gradients of what they hold, and the same loss.
  virtual void forward_backward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape,
                                Wide<T>* gradients, Gradients mode, double loss_scale, double* loss) = 0;
  // The sum of the token losses alone.
  virtual void forward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape, double* loss) = 0;
  // The same where weights and gradients come and go by unit; gradients are overwritten and not scaled.
  virtual void forward_backward(Stream& stream, ModelUnits<T>& units, const int32_t* tokens, LaneShape shape,
                                double* loss) = 0;
  virtual void forward(Stream& stream, ModelUnits<T>& units, const int32_t* tokens, LaneShape shape, double* loss) = 0;
  // The logits [vocab] that follow the last of `count` tokens (count ≤ largest.tokens). Not of tensor ranks.
  virtual void logits(Stream& stream, const T* params, const int32_t* tokens, uint32_t count, T* logits) = 0;
  // Bytes of activations.
  virtual uint64_t activation_bytes() const = 0;
};

}  // namespace pitcrew::trainer
