#pragma once

#include <cstddef>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// sum = x + residual; out = (sum - mean) × rstd × weight + bias, over the `width` elements of every row. Without a
// residual, sum is x and isn't written.
template <typename T>
struct LayerNormForward {
  size_t rows = 0, width = 0;
  const T* x = nullptr;
  const T* residual = nullptr;  // null for none
  T* sum = nullptr;             // [rows][width]; may be `residual`
  const T* weight = nullptr;
  const T* bias = nullptr;
  T* out = nullptr;
  Wide<T>* mean = nullptr;  // [rows]
  Wide<T>* rstd = nullptr;  // [rows]
  double epsilon = 1e-5;
};

// d_x = the gradient through the norm, added to d_x where `accumulate_x` (the residual's gradient that came from
// above). d_weight and d_bias are overwritten or added to, as `accumulate_weight` says.
template <typename T>
struct LayerNormBackward {
  size_t rows = 0, width = 0;
  const T* x = nullptr;  // what was normed: the forward's sum
  const T* weight = nullptr;
  const Wide<T>* mean = nullptr;
  const Wide<T>* rstd = nullptr;
  const T* d_out = nullptr;
  T* d_x = nullptr;
  bool accumulate_x = false;
  Wide<T>* d_weight = nullptr;
  Wide<T>* d_bias = nullptr;
  bool accumulate_weight = false;
};

template <typename T>
void run(WorkerPool& workers, const LayerNormForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const LayerNormBackward<T>& op);

}  // namespace pitcrew::trainer
