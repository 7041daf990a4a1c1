#pragma once

#include <vector>

#include "trainer/model/config.hpp"
#include "trainer/model/model.hpp"
#include "trainer/tensor/arena.hpp"

namespace pitcrew::trainer {

// What one block keeps for its way back. rows = predictions of the lane.
template <typename T>
struct BlockActivations {
  T* in = nullptr;         // [rows][width]: the residual stream before the block
  T* norm1 = nullptr;      // [rows][width]
  T* mean1 = nullptr;      // [rows] (gpt2)
  T* rstd1 = nullptr;      // [rows]
  T* qkv = nullptr;        // [rows][qkv width], rotated (llama)
  T* attention = nullptr;  // [rows][width]
  T* log_sum = nullptr;    // [sequences][heads][tokens]
  T* middle = nullptr;     // [rows][width]: the residual stream after attention
  T* norm2 = nullptr;
  T* mean2 = nullptr;
  T* rstd2 = nullptr;
  T* up = nullptr;      // [rows][mlp], gpt2; [rows][2 mlp], llama. Becomes its own gradient on the way back.
  T* hidden = nullptr;  // [rows][mlp]
};

// Everything a lane needs besides parameters and gradients, in one arena known before the first step.
template <typename T>
struct Activations {
  static Result<Activations> create(const ModelConfig& config, LaneShape largest, Device& device);

  Arena arena;
  std::vector<BlockActivations<T>> blocks;
  T* branch = nullptr;  // [rows][width]: what a block adds to the residual stream
  T* out = nullptr;     // [rows][width]: the residual stream at the end
  T* norm = nullptr;
  T* mean = nullptr;
  T* rstd = nullptr;
  uint64_t chunk = 0;     // predictions whose logits exist at a time
  T* logits = nullptr;    // [chunk][vocab]
  T* losses = nullptr;    // [rows]
  T* d_stream = nullptr;  // [rows][width]
  T* d_norm = nullptr;    // [rows][width]
  T* d_qkv = nullptr;     // [rows][qkv width]
  T* d_hidden = nullptr;  // [rows][mlp]
  T* cosines = nullptr;   // [context][head width / 2], llama
  T* sines = nullptr;
};

}  // namespace pitcrew::trainer
