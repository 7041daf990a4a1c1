#include "trainer/kernels/embedding.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kColumns = 64;

bool holds(const HeldRows& held, size_t row) { return row >= held.first && row - held.first < held.count; }

}  // namespace

template <typename T>
void run(WorkerPool& workers, const EmbeddingForward<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run(op.sequences, [&](size_t s, unsigned) {
    for (size_t t = 0; t < op.length; ++t) {
      const auto token = static_cast<size_t>(op.tokens[s * op.token_stride + t]);
      const bool positioned = op.positions != nullptr && holds(op.held_positions, t);
      const T* row = holds(op.held, token) ? op.table + (token - op.held.first) * op.width : nullptr;
      const T* position = positioned ? op.positions + (t - op.held_positions.first) * op.width : nullptr;
      T* out = op.out + (s * op.length + t) * op.width;
      if (row != nullptr && position != nullptr) {
        in.add_to(op.width, out, row, position);
      } else if (row != nullptr || position != nullptr) {
        std::copy_n(row != nullptr ? row : position, op.width, out);
      } else {
        std::fill_n(out, op.width, T{0});
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
        if (holds(op.held, token)) in.add(columns, op.d_table + (token - op.held.first) * op.width + column, d_out);
        if (op.d_positions != nullptr && holds(op.held_positions, t))
          in.add(columns, op.d_positions + (t - op.held_positions.first) * op.width + column, d_out);
      }
    }
  });
}

template void run(WorkerPool&, const EmbeddingForward<float>&);
template void run(WorkerPool&, const EmbeddingForward<double>&);
template void run(WorkerPool&, const EmbeddingBackward<float>&);
template void run(WorkerPool&, const EmbeddingBackward<double>&);

}  // namespace pitcrew::trainer
