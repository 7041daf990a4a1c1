#include "trainer/kernels/swiglu.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kRows = 32;

}  // namespace

template <typename T>
void run(WorkerPool& workers, const SwiGluForward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      const T* gate = op.gate_up + row * 2 * op.width;
      in.swiglu(op.width, gate, gate + op.width, op.out + row * op.width);
    }
  });
}

template <typename T>
void run(WorkerPool& workers, const SwiGluBackward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      const T* gate = op.gate_up + row * 2 * op.width;
      T* d_gate = op.d_gate_up + row * 2 * op.width;
      in.swiglu_backward(op.width, gate, gate + op.width, op.d_out + row * op.width, d_gate, d_gate + op.width);
    }
  });
}

template void run(WorkerPool&, const SwiGluForward<float>&);
template void run(WorkerPool&, const SwiGluForward<double>&);
template void run(WorkerPool&, const SwiGluBackward<float>&);
template void run(WorkerPool&, const SwiGluBackward<double>&);

}  // namespace pitcrew::trainer
