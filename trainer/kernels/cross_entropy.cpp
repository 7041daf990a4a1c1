#include "trainer/kernels/cross_entropy.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kRows = 16;

}  // namespace

template <typename T>
void run(WorkerPool& workers, const CrossEntropy<T>& op) {
  const Inner<T>& in = inner<T>();
  const size_t used = op.used == 0 ? op.vocab : op.used;
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      const size_t prediction = op.first_row + row;
      const auto target =
          static_cast<size_t>(op.tokens[prediction / op.length * op.token_stride + prediction % op.length + 1]);
      T* logits = op.logits + row * op.vocab;
      const T target_logit = logits[target];
      T sum;
      const T shift = in.softmax(used, logits, T{1}, &sum);
      op.losses[row] = (shift - target_logit) + static_cast<T>(portable_log(sum));
      if (!op.backward) continue;
      in.multiply_by(used, logits, static_cast<T>(op.scale) / sum);
      logits[target] -= static_cast<T>(op.scale);
      std::fill(logits + used, logits + op.vocab, T{0});
    }
  });
}

template void run(WorkerPool&, const CrossEntropy<float>&);
template void run(WorkerPool&, const CrossEntropy<double>&);

}  // namespace pitcrew::trainer
