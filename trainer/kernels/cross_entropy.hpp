#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// losses[row] = log Σ exp(logits[row]) - logits[row][target]; with `backward`, logits become scale × (softmax -
// onehot). Row r of these is prediction first_row + r of the lane: its target is tokens[p / length][p % length + 1].
template <typename T>
struct CrossEntropy {
  size_t rows = 0, vocab = 0;
  size_t used = 0;  // columns that are tokens; what lies behind them is padding without logits. 0: all
  T* logits = nullptr;
  const int32_t* tokens = nullptr;
  size_t token_stride = 0, length = 0, first_row = 0;
  Wide<T>* losses = nullptr;  // [rows]
  bool backward = false;
  double scale = 1;
};

template <typename T>
void run(WorkerPool& workers, const CrossEntropy<T>& op);

}  // namespace pitcrew::trainer
