#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace pitcrew::trainer {

class WorkerPool;

// into += from, element by element: one edge of the tree that lanes are added in.
template <typename T>
struct Add {
  size_t elements = 0;
  T* into = nullptr;
  const T* from = nullptr;
};

// Sums in double, in an order fixed by `elements` alone: blocks of kSumBlock from the start, then a binary tree over
// blocks.
inline constexpr size_t kSumBlock = 16384;

template <typename T>
struct Sum {
  size_t elements = 0;
  const T* x = nullptr;
  double* sum = nullptr;
};

template <typename T>
struct SquareSum {
  size_t elements = 0;
  const T* x = nullptr;
  double* sum = nullptr;
};

// What the optimizer needs to know about a step's gradient, made on the device so that no one waits for it.
struct GradientSummary {
  double norm = 0;      // of the gradient divided by `tokens`, before clipping
  double scale = 0;     // what to multiply gradients by: 1/tokens, times max_norm/norm where that is below 1
  uint32_t finite = 0;  // 1 where norm is a finite number and not above Summarize::limit
  uint32_t reserved = 0;
};

// From the square sum of gradients that are sums over `tokens` tokens. max_norm 0: no clipping.
struct Summarize {
  const double* square_sum = nullptr;
  double tokens = 1;
  double max_norm = 0;
  GradientSummary* out = nullptr;
  double limit = std::numeric_limits<double>::infinity();  // a norm above it is not believed
};

template <typename T>
void run(WorkerPool& workers, const Add<T>& op);
template <typename T>
void run(WorkerPool& workers, const Sum<T>& op);
template <typename T>
void run(WorkerPool& workers, const SquareSum<T>& op);
void run(WorkerPool& workers, const Summarize& op);

}  // namespace pitcrew::trainer
