#include "trainer/kernels/layernorm.hpp"

#include <algorithm>
#include <cmath>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"
#include "trainer/kernels/norm_backward.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kRows = 32;

}  // namespace

template <typename T>
void run(WorkerPool& workers, const LayerNormForward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      const T* x = op.x + row * op.width;
      if (op.residual != nullptr) {
        T* sum = op.sum + row * op.width;
        in.add_to(op.width, sum, x, op.residual + row * op.width);
        x = sum;
      }
      const T mean = in.mean(op.width, x);
      const T rstd = T{1} / std::sqrt(in.variance(op.width, x, mean) + static_cast<T>(op.epsilon));
      op.mean[row] = mean;
      op.rstd[row] = rstd;
      in.normalize(op.width, x, mean, rstd, op.weight, op.bias, op.out + row * op.width);
    }
  });
}

template <typename T>
void run(WorkerPool& workers, const LayerNormBackward<T>& op) {
  norm_backward(workers, op, op.mean, true, op.d_bias);
}

template void run(WorkerPool&, const LayerNormForward<float>&);
template void run(WorkerPool&, const LayerNormForward<double>&);
template void run(WorkerPool&, const LayerNormBackward<float>&);
template void run(WorkerPool&, const LayerNormBackward<double>&);

}  // namespace pitcrew::trainer
