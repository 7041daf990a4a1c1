#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// What one tensor rank's columns say of a row.
template <typename T>
struct SoftmaxPart {
  T shift;   // the largest logit
  T sum;     // Σ exp(logit - shift); 0 where the rank has no column that is a token
  T target;  // the target's logit where it is here, else 0
};

// parts[row] from the logits of columns [first, first + vocab) of the vocabulary, which stay as they are. Rows as in
// CrossEntropy.
template <typename T>
struct CrossEntropyPart {
  size_t rows = 0, vocab = 0;
  size_t used = 0;  // columns of these that are tokens; may be 0
  size_t first = 0;
  const T* logits = nullptr;
  const int32_t* tokens = nullptr;
  size_t token_stride = 0, length = 0, first_row = 0;
  SoftmaxPart<Wide<T>>* parts = nullptr;  // [rows]
};

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
  // Of a vocabulary that tensor ranks share: what all of them said, [ranks][rows]. It is put together in their order.
  const SoftmaxPart<Wide<T>>* parts = nullptr;
  size_t ranks = 1;
  size_t first = 0;  // as in CrossEntropyPart; `used` is then meant literally
};

template <typename T>
void run(WorkerPool& workers, const CrossEntropyPart<T>& op);
template <typename T>
void run(WorkerPool& workers, const CrossEntropy<T>& op);

}  // namespace pitcrew::trainer
