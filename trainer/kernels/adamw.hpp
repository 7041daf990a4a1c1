#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/kernels/reduce.hpp"
#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

// AdamW with decoupled weight decay (Loshchilov and Hutter 2019), as torch.optim.AdamW computes it:
//   g = scale × gradient; p -= lr × decay × p; m, v ← moments of g; p -= lr/(1-β1^t) × m / (√(v/(1-β2^t)) + ε).
// Nothing changes where gradient->finite is 0.
template <typename T>
struct AdamW {
  size_t elements = 0;
  Wide<T>* params = nullptr;
  Wide<T>* m = nullptr;
  Wide<T>* v = nullptr;
  const Wide<T>* gradients = nullptr;
  T* weights = nullptr;  // gets the new parameters rounded to T; null where T is its own master
  const GradientSummary* gradient = nullptr;
  double learning_rate = 0, beta1 = 0, beta2 = 0, epsilon = 0, weight_decay = 0;
  uint64_t step = 1;  // counts from 1
  // With T = BF16: `weights` and these are the masters in two halves, and `params` is null. The same bits result.
  uint16_t* remainders = nullptr;
};

template <typename T>
void run(WorkerPool& workers, const AdamW<T>& op);

}  // namespace pitcrew::trainer
