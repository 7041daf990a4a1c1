#pragma once

#include <cstddef>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// sum = x + residual; out = sum × rstd × weight with rstd = 1/√(mean(sum²) + epsilon). Without a residual, sum is x and
// isn't written.
template <typename T>
struct RmsNormForward {
  size_t rows = 0, width = 0;
  const T* x = nullptr;
  const T* residual = nullptr;  // null for none
  T* sum = nullptr;             // [rows][width]; may be `residual`
  const T* weight = nullptr;
  T* out = nullptr;
  Wide<T>* rstd = nullptr;  // [rows]
  double epsilon = 1e-5;
};

// As LayerNormBackward.
template <typename T>
struct RmsNormBackward {
  size_t rows = 0, width = 0;
  const T* x = nullptr;  // what was normed: the forward's sum
  const T* weight = nullptr;
  const Wide<T>* rstd = nullptr;
  const T* d_out = nullptr;
  T* d_x = nullptr;
  bool accumulate_x = false;
  Wide<T>* d_weight = nullptr;
  bool accumulate_weight = false;
};

template <typename T>
void run(WorkerPool& workers, const RmsNormForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const RmsNormBackward<T>& op);

}  // namespace pitcrew::trainer
