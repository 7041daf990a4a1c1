#pragma once

#include <cstddef>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// c = a · b (+ bias) (+ c), row-major: a is m×k, b is k×n, c is m×n, rows `*_stride` elements apart. A transposed
// operand is stored as k×m (a) or n×k (b).
template <typename T>
struct Matmul {
  size_t m = 0, n = 0, k = 0;
  const T* a = nullptr;
  size_t a_stride = 0;
  bool a_transposed = false;
  const T* b = nullptr;
  size_t b_stride = 0;
  bool b_transposed = false;
  T* c = nullptr;
  size_t c_stride = 0;
  bool accumulate = false;
  const T* bias = nullptr;  // [n], added to every row; null for none
};

// gradient[out][in] = d_outᵀ · x (+ gradient), where d_out is rows × out and x is rows × in: the gradient of a linear
// layer's weight.
template <typename T>
struct WeightGradient {
  size_t rows = 0, out = 0, in = 0;
  const T* d_out = nullptr;
  const T* x = nullptr;
  Wide<T>* gradient = nullptr;
  bool accumulate = false;
};

// sums[n] = Σ over rows of x[rows][n] (+ sums): the gradient of a bias.
template <typename T>
struct ColumnSum {
  size_t rows = 0, n = 0;
  const T* x = nullptr;
  Wide<T>* sums = nullptr;
  bool accumulate = false;
};

template <typename T>
void run(WorkerPool& workers, const Matmul<T>& op);
template <typename T>
void run(WorkerPool& workers, const WeightGradient<T>& op);
template <typename T>
void run(WorkerPool& workers, const ColumnSum<T>& op);

}  // namespace pitcrew::trainer
