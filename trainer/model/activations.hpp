#pragma once

#include <vector>

#include "trainer/kernels/cross_entropy.hpp"
#include "trainer/model/config.hpp"
#include "trainer/model/model.hpp"
#include "trainer/tensor/arena.hpp"

namespace pitcrew::trainer {

// What one block keeps for its way back. rows = predictions of the lane. Of tensor ranks each has its own rows, rows /
// ranks of them, of the residual stream and of what norms make of it, and all rows of its heads and its part of the
// MLP.
template <typename T>
struct BlockActivations {
  T* in = nullptr;           // [own rows][width]: the residual stream before the block
  T* norm1 = nullptr;        // [own rows][width]
  Wide<T>* mean1 = nullptr;  // [own rows] (gpt2)
  Wide<T>* rstd1 = nullptr;  // [own rows]
  T* qkv = nullptr;          // [rows][qkv width], rotated (llama)
  T* heads = nullptr;        // [rows][query and key heads' width]: before their norm (qkNorm)
  Wide<T>* heads_rstd = nullptr;
  T* attention = nullptr;      // [rows][heads' width]
  Wide<T>* log_sum = nullptr;  // [sequences][heads][tokens]
  T* middle = nullptr;         // [own rows][width]: the residual stream after attention
  T* norm2 = nullptr;
  Wide<T>* mean2 = nullptr;
  Wide<T>* rstd2 = nullptr;
  T* up = nullptr;      // [rows][mlp], gpt2; [rows][2 mlp], llama. Becomes its own gradient on the way back.
  T* hidden = nullptr;  // [rows][mlp]
};

// Everything a lane needs besides parameters and gradients, in one arena known before the first step.
template <typename T>
struct Activations {
  // `part`: tensor_part() of the model for `ranks` tensor ranks, which divide the predictions.
  static Result<Activations> create(const ModelConfig& part, LaneShape largest, Recompute recompute, Device& device,
                                    uint32_t ranks = 1);
  // What create() would allocate.
  static ArenaLayout layout(const ModelConfig& part, LaneShape largest, Recompute recompute, uint32_t ranks = 1);

  Arena arena;
  std::vector<BlockActivations<T>> blocks;
  T* branch = nullptr;  // [own rows][width]: what a block adds to the residual stream
  T* out = nullptr;     // [own rows][width]: the residual stream at the end
  T* norm = nullptr;
  Wide<T>* mean = nullptr;
  Wide<T>* rstd = nullptr;
  uint64_t chunk = 0;          // predictions whose logits exist at a time
  T* logits = nullptr;         // [chunk][vocab]
  Wide<T>* losses = nullptr;   // [rows]
  T* d_stream = nullptr;       // [own rows][width]
  T* d_norm = nullptr;         // [own rows][width]
  T* d_attention = nullptr;    // [rows][heads' width]; d_norm where that is as wide
  T* d_qkv = nullptr;          // [rows][qkv width]
  T* d_hidden = nullptr;       // [rows][mlp]
  Wide<T>* cosines = nullptr;  // [context][head width / 2], llama
  Wide<T>* sines = nullptr;
  // Of tensor ranks alone.
  T* gathered = nullptr;                           // [rows][width]: all ranks' rows; or their parts of the own rows
  T* partial = nullptr;                            // [rows][width]: this rank's part of a sum
  SoftmaxPart<Wide<T>>* softmax = nullptr;         // [chunk]
  SoftmaxPart<Wide<T>>* softmax_of_all = nullptr;  // [ranks][chunk]
  Wide<T>* small = nullptr;                        // [small_elements()]: gradients of what all ranks hold, of own rows
  Wide<T>* small_of_all = nullptr;                 // [ranks][small_elements()]

 private:
  // Slices of the arena with the pointers that will point to them.
  class Plan;
  void describe(const ModelConfig& config, LaneShape largest, Recompute recompute, uint32_t ranks, Plan& plan);
};

// The gains and biases that tensor ranks compute from their own rows or heads and add up: norms and q/k norms, each
// rounded up to 16 elements.
uint64_t small_elements(const ModelConfig& config);
constexpr uint64_t small_stride(uint64_t elements) { return (elements + 15) / 16 * 16; }

}  // namespace pitcrew::trainer
