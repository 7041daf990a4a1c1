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
  bool accumulate = false;  // adds to what *sum is
};

// out[row] = parts[0][row] + parts[1][row] + … (+ bias): what tensor ranks bring to a row, added in their order in
// Wide<T> and rounded once. A part is [rows][width]; they lie one behind the other.
template <typename T>
struct SumParts {
  size_t rows = 0, width = 0, count = 0;
  const T* parts = nullptr;
  T* out = nullptr;
  const T* bias = nullptr;  // [width]; null for none
};

// What the optimizer needs to know about a step's gradient, made on the device so that no one waits for it.
struct GradientSummary {
  double norm = 0;      // of the gradient divided by `tokens`, before clipping
  double scale = 0;     // what to multiply gradients by: 1/tokens, times max_norm/norm where that is below 1
  uint32_t finite = 0;  // 1 where norm is a finite number and not above Summarize::limit
  uint32_t reserved = 0;
};

// From the square sum of gradients that are sums over `tokens` tokens; of several parts they are added in their order.
// max_norm 0: no clipping.
struct Summarize {
  const double* square_sum = nullptr;  // [parts]
  double tokens = 1;
  double max_norm = 0;
  GradientSummary* out = nullptr;
  double limit = std::numeric_limits<double>::infinity();  // a norm above it is not believed
  size_t parts = 1;
};

template <typename T>
void run(WorkerPool& workers, const Add<T>& op);
template <typename T>
void run(WorkerPool& workers, const Sum<T>& op);
template <typename T>
void run(WorkerPool& workers, const SquareSum<T>& op);
template <typename T>
void run(WorkerPool& workers, const SumParts<T>& op);
void run(WorkerPool& workers, const Summarize& op);

}  // namespace pitcrew::trainer
