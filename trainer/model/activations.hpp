#pragma once

#include <vector>

#include "trainer/model/config.hpp"
#include "trainer/model/model.hpp"
#include "trainer/tensor/arena.hpp"

namespace pitcrew::trainer {

// What one block keeps for its way back. rows = predictions of the lane.
template <typename T>
struct BlockActivations {
  T* in = nullptr;           // [rows][width]: the residual stream before the block
  T* norm1 = nullptr;        // [rows][width]
  Wide<T>* mean1 = nullptr;  // [rows] (gpt2)
  Wide<T>* rstd1 = nullptr;  // [rows]
  T* qkv = nullptr;          // [rows][qkv width], rotated (llama)
  T* heads = nullptr;        // [rows][query and key heads' width]: before their norm (qkNorm)
  Wide<T>* heads_rstd = nullptr;
  T* attention = nullptr;      // [rows][heads' width]
  Wide<T>* log_sum = nullptr;  // [sequences][heads][tokens]
  T* middle = nullptr;         // [rows][width]: the residual stream after attention
  T* norm2 = nullptr;
  Wide<T>* mean2 = nullptr;
  Wide<T>* rstd2 = nullptr;
  T* up = nullptr;      // [rows][mlp], gpt2; [rows][2 mlp], llama. Becomes its own gradient on the way back.
  T* hidden = nullptr;  // [rows][mlp]
};

// Everything a lane needs besides parameters and gradients, in one arena known before the first step.
template <typename T>
struct Activations {
  static Result<Activations> create(const ModelConfig& config, LaneShape largest, Recompute recompute, Device& device);
  // What create() would allocate.
  static ArenaLayout layout(const ModelConfig& config, LaneShape largest, Recompute recompute);

  Arena arena;
  std::vector<BlockActivations<T>> blocks;
  T* branch = nullptr;  // [rows][width]: what a block adds to the residual stream
  T* out = nullptr;     // [rows][width]: the residual stream at the end
  T* norm = nullptr;
  Wide<T>* mean = nullptr;
  Wide<T>* rstd = nullptr;
  uint64_t chunk = 0;          // predictions whose logits exist at a time
  T* logits = nullptr;         // [chunk][vocab]
  Wide<T>* losses = nullptr;   // [rows]
  T* d_stream = nullptr;       // [rows][width]
  T* d_norm = nullptr;         // [rows][width]
  T* d_attention = nullptr;    // [rows][heads' width]; d_norm where that is as wide
  T* d_qkv = nullptr;          // [rows][qkv width]
  T* d_hidden = nullptr;       // [rows][mlp]
  Wide<T>* cosines = nullptr;  // [context][head width / 2], llama
  Wide<T>* sines = nullptr;

 private:
  // Slices of the arena with the pointers that will point to them.
  class Plan;
  void describe(const ModelConfig& config, LaneShape largest, Recompute recompute, Plan& plan);
};

}  // namespace pitcrew::trainer
