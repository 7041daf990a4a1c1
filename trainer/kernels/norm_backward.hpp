#pragma once

#include <algorithm>
#include <cstddef>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

// What LayerNorm and RMSNorm share on the way back: rows are cut into blocks by their number alone, each block sums its
// own weight gradients, and the blocks' sums are added in their order. `Op` is one of the two; mean and d_bias may be
// null.
template <typename T, typename Op>
void norm_backward(WorkerPool& workers, const Op& op, const T* mean, bool centered, T* d_bias) {
  const Inner<T>& in = inner<T>();
  constexpr size_t kBlocks = 32, kColumns = 64;
  const size_t block = std::max<size_t>(16, (op.rows + kBlocks - 1) / kBlocks);
  const size_t blocks = (op.rows + block - 1) / block;
  T* partial = reinterpret_cast<T*>(workers.shared(2 * blocks * op.width * sizeof(T)));
  workers.run(blocks, [&](size_t part, unsigned) {
    T* weight_sums = partial + 2 * part * op.width;
    T* bias_sums = d_bias == nullptr ? nullptr : weight_sums + op.width;
    std::fill_n(weight_sums, 2 * op.width, T{0});
    for (size_t row = part * block; row < std::min(op.rows, (part + 1) * block); ++row) {
      in.normalize_backward(op.width, op.x + row * op.width, mean == nullptr ? T{0} : mean[row], op.rstd[row], centered,
                            op.weight, op.d_out + row * op.width, op.d_x + row * op.width, op.accumulate_x, weight_sums,
                            bias_sums);
    }
  });
  workers.run((op.width + kColumns - 1) / kColumns, [&](size_t part, unsigned) {
    const size_t column = part * kColumns, columns = std::min(kColumns, op.width - column);
    const auto add_up = [&](T* to, const T* from) {
      if (!op.accumulate_weight) std::fill_n(to, columns, T{0});
      for (size_t b = 0; b < blocks; ++b) in.add(columns, to, from + 2 * b * op.width);
    };
    add_up(op.d_weight + column, partial + column);
    if (d_bias != nullptr) add_up(d_bias + column, partial + op.width + column);
  });
}

}  // namespace pitcrew::trainer
