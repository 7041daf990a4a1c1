#include "trainer/kernels/embedding.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kColumns = 64;

}  // namespace

template <typename T>
void run(WorkerPool& workers, const EmbeddingForward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run(op.sequences, [&](size_t s, unsigned) {
    for (size_t t = 0; t < op.length; ++t) {
      const T* row = op.table + static_cast<size_t>(op.tokens[s * op.token_stride + t]) * op.width;
      T* out = op.out + (s * op.length + t) * op.width;
      if (op.positions != nullptr) {
        in.add_to(op.width, out, row, op.positions + t * op.width);
      } else {
        std::copy_n(row, op.width, out);
      }
    }
  });
}

// Cut by columns, so that each sum is made by one worker in the order of the tokens.
template <typename T>
void run(WorkerPool& workers, const EmbeddingBackward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.width + kColumns - 1) / kColumns, [&](size_t part, unsigned) {
    const size_t column = part * kColumns, columns = std::min(kColumns, op.width - column);
    for (size_t s = 0; s < op.sequences; ++s) {
      for (size_t t = 0; t < op.length; ++t) {
        const T* d_out = op.d_out + (s * op.length + t) * op.width + column;
        const auto token = static_cast<size_t>(op.tokens[s * op.token_stride + t]);
        in.add(columns, op.d_table + token * op.width + column, d_out);
        if (op.d_positions != nullptr) in.add(columns, op.d_positions + t * op.width + column, d_out);
      }
    }
  });
}

template void run(WorkerPool&, const EmbeddingForward<float>&);
template void run(WorkerPool&, const EmbeddingForward<double>&);
template void run(WorkerPool&, const EmbeddingBackward<float>&);
template void run(WorkerPool&, const EmbeddingBackward<double>&);

}  // namespace pitcrew::trainer
