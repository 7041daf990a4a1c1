// A plain tiled product for any shape, stride and alignment: where cuBLASLt has none, and what it is compared with.
#include <type_traits>

#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kTile = 64, kDepth = 16, kThreads = 256, kPart = 4;

struct Operand {
  const BF16* data;
  size_t row_step, column_step;
  __device__ float at(size_t row, size_t column) const { return to_float(data[row * row_step + column * column_step]); }
};

// Each block makes a 64 × 64 tile of c, each thread 4 × 4 of it, added up in the order of k.
template <typename C>
__global__ void __launch_bounds__(kThreads) product(size_t m, size_t n, size_t k, Operand a, Operand b, C* c,
                                                    size_t c_stride, bool accumulate, const BF16* bias) {
  __shared__ float tile_a[kDepth][kTile + 1];
  __shared__ float tile_b[kDepth][kTile + 1];
  const size_t row0 = size_t{blockIdx.y} * kTile, column0 = size_t{blockIdx.x} * kTile;
  const unsigned row = threadIdx.x / (kTile / kPart) * kPart, column = threadIdx.x % (kTile / kPart) * kPart;
  float sums[kPart][kPart] = {};
  for (size_t depth = 0; depth < k; depth += kDepth) {
    for (unsigned i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
      const unsigned at = i / kDepth, d = i % kDepth;
      const bool inside = depth + d < k;
      tile_a[d][at] = inside && row0 + at < m ? a.at(row0 + at, depth + d) : 0.0f;
      tile_b[d][at] = inside && column0 + at < n ? b.at(depth + d, column0 + at) : 0.0f;
    }
    __syncthreads();
    for (unsigned d = 0; d < kDepth; ++d) {
#pragma unroll
      for (unsigned i = 0; i < kPart; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kPart; ++j) sums[i][j] += tile_a[d][row + i] * tile_b[d][column + j];
      }
    }
    __syncthreads();
  }
  for (unsigned i = 0; i < kPart; ++i) {
    for (unsigned j = 0; j < kPart; ++j) {
      if (row0 + row + i >= m || column0 + column + j >= n) continue;
      C* to = c + (row0 + row + i) * c_stride + column0 + column + j;
      float sum[1] = {sums[i][j]};
      if (bias != nullptr) sum[0] += to_float(bias[column0 + column + j]);
      if constexpr (std::is_same_v<C, float>) {
        if (accumulate) sum[0] += *to;
      } else {
        if (accumulate) sum[0] += to_float(*to);
      }
      store(to, sum);
    }
  }
}

dim3 tiles(size_t m, size_t n) {
  return dim3(static_cast<unsigned>(ceil_div(n, kTile)), static_cast<unsigned>(ceil_div(m, kTile)));
}

Operand operand(const BF16* data, size_t stride, bool transposed) {
  return transposed ? Operand{data, 1, stride} : Operand{data, stride, 1};
}

}  // namespace

void Launcher::operator()(const Matmul<BF16>& op) const {
  launch(product<BF16>, tiles(op.m, op.n), kThreads, 0, queue, op.m, op.n, op.k,
         operand(op.a, op.a_stride, op.a_transposed), operand(op.b, op.b_stride, op.b_transposed), op.c, op.c_stride,
         op.accumulate, op.bias);
}

void Launcher::operator()(const WeightGradient<BF16>& op) const {
  launch(product<float>, tiles(op.out, op.in), kThreads, 0, queue, op.out, op.in, op.rows,
         operand(op.d_out, op.out, true), operand(op.x, op.in, false), op.gradient, op.in, op.accumulate,
         static_cast<const BF16*>(nullptr));
}

}  // namespace pitcrew::trainer::cuda
