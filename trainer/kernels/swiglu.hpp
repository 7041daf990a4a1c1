#pragma once

#include <cstddef>

namespace pitcrew::trainer {

class WorkerPool;

// out = silu(gate) × up, where each row of gate_up[rows][2 × width] holds gate, then up.
template <typename T>
struct SwiGluForward {
  size_t rows = 0, width = 0;
  const T* gate_up = nullptr;
  T* out = nullptr;
};

// d_gate_up may be gate_up.
template <typename T>
struct SwiGluBackward {
  size_t rows = 0, width = 0;
  const T* gate_up = nullptr;
  const T* d_out = nullptr;
  T* d_gate_up = nullptr;
};

template <typename T>
void run(WorkerPool& workers, const SwiGluForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const SwiGluBackward<T>& op);

}  // namespace pitcrew::trainer
