#include "trainer/kernels/rmsnorm.hpp"

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
void run(WorkerPool& workers, const RmsNormForward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      const T* x = op.x + row * op.width;
      if (op.residual != nullptr) {
        T* sum = op.sum + row * op.width;
        in.add_to(op.width, sum, x, op.residual + row * op.width);
        x = sum;
      }
      const T mean_square = in.dot(op.width, x, x) / static_cast<T>(op.width);
      const T rstd = T{1} / std::sqrt(mean_square + static_cast<T>(op.epsilon));
      op.rstd[row] = rstd;
      in.normalize(op.width, x, T{0}, rstd, op.weight, nullptr, op.out + row * op.width);
    }
  });
}

template <typename T>
void run(WorkerPool& workers, const RmsNormBackward<T>& op) {
  norm_backward<T>(workers, op, nullptr, false, nullptr);
}

template void run(WorkerPool&, const RmsNormForward<float>&);
template void run(WorkerPool&, const RmsNormForward<double>&);
template void run(WorkerPool&, const RmsNormBackward<float>&);
template void run(WorkerPool&, const RmsNormBackward<double>&);

}  // namespace pitcrew::trainer
