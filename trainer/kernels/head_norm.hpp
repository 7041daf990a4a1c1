#pragma once

#include <cstddef>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// RMSNorm over each query and key head (Qwen 3), in place: the first heads + kv_heads heads of every row of
// qkv[rows][row_stride], queries with q_weight, keys with k_weight. What they were is kept for the way back.
template <typename T>
struct HeadNormForward {
  size_t rows = 0, heads = 0, kv_heads = 0, head_width = 0, row_stride = 0;
  T* qkv = nullptr;
  T* kept = nullptr;  // [rows][(heads + kv_heads) × head_width]
  const T* q_weight = nullptr;
  const T* k_weight = nullptr;
  Wide<T>* rstd = nullptr;  // [rows][heads + kv_heads]
  double epsilon = 1e-5;
};

// d_qkv turns into the gradient before the norm, in place; values are not touched.
template <typename T>
struct HeadNormBackward {
  size_t rows = 0, heads = 0, kv_heads = 0, head_width = 0, row_stride = 0;
  T* d_qkv = nullptr;
  const T* kept = nullptr;
  const T* q_weight = nullptr;
  const T* k_weight = nullptr;
  const Wide<T>* rstd = nullptr;
  Wide<T>* d_q_weight = nullptr;
  Wide<T>* d_k_weight = nullptr;
  bool accumulate_weight = false;
};

template <typename T>
void run(WorkerPool& workers, const HeadNormForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const HeadNormBackward<T>& op);

}  // namespace pitcrew::trainer
