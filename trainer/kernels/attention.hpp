#pragma once

#include <cstddef>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// Causal attention with grouped queries. qkv[sequences × length][(heads + 2 kv_heads) × head_width] holds all query
// heads, then key heads, then value heads; query head h uses key head h / (heads / kv_heads). No length × length matrix
// is kept: a block of query rows is done at a time.
template <typename T>
struct AttentionForward {
  size_t sequences = 0, length = 0, heads = 0, kv_heads = 0, head_width = 0;
  const T* qkv = nullptr;
  T* out = nullptr;            // [sequences × length][heads × head_width]
  Wide<T>* log_sum = nullptr;  // [sequences][heads][length]: the logarithm of each row's sum of exponentials
};

// d_qkv is overwritten.
template <typename T>
struct AttentionBackward {
  size_t sequences = 0, length = 0, heads = 0, kv_heads = 0, head_width = 0;
  const T* qkv = nullptr;
  const T* out = nullptr;
  const Wide<T>* log_sum = nullptr;
  const T* d_out = nullptr;
  T* d_qkv = nullptr;
};

template <typename T>
void run(WorkerPool& workers, const AttentionForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const AttentionBackward<T>& op);

}  // namespace pitcrew::trainer
