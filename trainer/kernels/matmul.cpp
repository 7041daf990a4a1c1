#include "trainer/kernels/matmul.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

// A panel of b, kDepth × tile_n, stays in the first-level cache, a block of a, kRows × kDepth, in the second.
constexpr size_t kDepth = 256;
constexpr size_t kRows = 144;

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

}  // namespace

// b is packed whole, by all workers; then each takes blocks of c, packs its rows of a, and goes through k. Every
// element of c is added up in the order of k in blocks of kDepth, so its bits do not depend on how c is cut.
template <typename T>
void run(WorkerPool& workers, const Matmul<T>& op) {
  const Inner<T>& in = inner<T>();
  const size_t depths = std::max<size_t>(1, ceil_div(op.k, kDepth));
  const size_t depth = ceil_div(op.k, depths);
  const size_t panels = ceil_div(op.n, in.tile_n);
  const size_t padded_n = panels * in.tile_n;
  T* packed_b = reinterpret_cast<T*>(workers.shared(std::max<size_t>(1, op.k * padded_n) * sizeof(T)));
  const auto depth_of = [&](size_t d) { return std::min(depth, op.k - std::min(op.k, d * depth)); };

  const size_t panel_groups = std::min(panels, size_t{4} * workers.threads());
  workers.run(depths * panel_groups, [&](size_t part, unsigned) {
    const size_t d = part / panel_groups, group = part % panel_groups;
    const size_t k0 = d * depth, k = depth_of(d);
    for (size_t panel = group * panels / panel_groups; panel < (group + 1) * panels / panel_groups; ++panel) {
      const size_t column = panel * in.tile_n, valid = std::min(in.tile_n, op.n - column);
      T* to = packed_b + k0 * padded_n + panel * in.tile_n * k;
      if (op.b_transposed) {
        in.pack_transposed(to, in.tile_n, op.b + column * op.b_stride + k0, op.b_stride, valid, k);
      } else {
        in.pack_straight(to, in.tile_n, op.b + k0 * op.b_stride + column, op.b_stride, valid, k);
      }
    }
  });

  const size_t wanted = size_t{4} * workers.threads();
  const size_t row_blocks = std::max(ceil_div(op.m, kRows), std::min(wanted, ceil_div(op.m, 4 * in.tile_m)));
  const size_t block_rows = ceil_div(ceil_div(op.m, row_blocks), in.tile_m) * in.tile_m;
  const size_t blocks = ceil_div(op.m, block_rows);
  const size_t column_groups = std::min(panels, ceil_div(wanted, blocks));
  workers.run(blocks * column_groups, [&](size_t part, unsigned worker) {
    const size_t row = part / column_groups * block_rows, group = part % column_groups;
    const size_t rows = std::min(block_rows, op.m - row);
    const size_t first = group * panels / column_groups, last = (group + 1) * panels / column_groups;
    const size_t column = first * in.tile_n, columns = std::min(op.n, last * in.tile_n) - column;
    T* c = op.c + row * op.c_stride + column;
    if (op.bias != nullptr) {
      for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < columns; ++j) {
          c[i * op.c_stride + j] = (op.accumulate ? c[i * op.c_stride + j] : T{0}) + op.bias[column + j];
        }
      }
    }
    T* packed_a = reinterpret_cast<T*>(workers.scratch(worker, std::max<size_t>(1, block_rows * depth) * sizeof(T)));
    for (size_t d = 0; d < depths; ++d) {
      const size_t k0 = d * depth, k = depth_of(d);
      for (size_t i = 0; i < rows; i += in.tile_m) {
        const size_t valid = std::min(in.tile_m, rows - i);
        if (op.a_transposed) {
          in.pack_straight(packed_a + i * k, in.tile_m, op.a + k0 * op.a_stride + row + i, op.a_stride, valid, k);
        } else {
          in.pack_transposed(packed_a + i * k, in.tile_m, op.a + (row + i) * op.a_stride + k0, op.a_stride, valid, k);
        }
      }
      in.multiply(rows, columns, k, packed_a, in.tile_m * k, packed_b + k0 * padded_n + first * in.tile_n * k,
                  in.tile_n * k, c, op.c_stride, op.accumulate || op.bias != nullptr || d > 0);
    }
  });
}

template <typename T>
void run(WorkerPool& workers, const WeightGradient<T>& op) {
  run(workers, Matmul<T>{.m = op.out,
                         .n = op.in,
                         .k = op.rows,
                         .a = op.d_out,
                         .a_stride = op.out,
                         .a_transposed = true,
                         .b = op.x,
                         .b_stride = op.in,
                         .c = op.gradient,
                         .c_stride = op.in,
                         .accumulate = op.accumulate});
}

template <typename T>
void run(WorkerPool& workers, const ColumnSum<T>& op) {
  const Inner<T>& in = inner<T>();
  constexpr size_t kColumns = 64;
  workers.run(ceil_div(op.n, kColumns), [&](size_t part, unsigned) {
    const size_t column = part * kColumns, columns = std::min(kColumns, op.n - column);
    T* sums = op.sums + column;
    if (!op.accumulate) std::fill_n(sums, columns, T{0});
    for (size_t row = 0; row < op.rows; ++row) in.add(columns, sums, op.x + row * op.n + column);
  });
}

template void run(WorkerPool&, const Matmul<float>&);
template void run(WorkerPool&, const Matmul<double>&);
template void run(WorkerPool&, const WeightGradient<float>&);
template void run(WorkerPool&, const WeightGradient<double>&);
template void run(WorkerPool&, const ColumnSum<float>&);
template void run(WorkerPool&, const ColumnSum<double>&);

}  // namespace pitcrew::trainer
