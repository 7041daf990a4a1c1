#pragma once

#include <cstddef>

namespace pitcrew::trainer {

class WorkerPool;

// The tanh form of GPT-2: out = x/2 × (1 + tanh(√(2/π) (x + 0.044715 x³))).
template <typename T>
struct GeluForward {
  size_t elements = 0;
  const T* x = nullptr;
  T* out = nullptr;
};

// d_x may be d_out or x.
template <typename T>
struct GeluBackward {
  size_t elements = 0;
  const T* x = nullptr;
  const T* d_out = nullptr;
  T* d_x = nullptr;
};

template <typename T>
void run(WorkerPool& workers, const GeluForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const GeluBackward<T>& op);

}  // namespace pitcrew::trainer
