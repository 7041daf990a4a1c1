// Sums over rows and over everything, each in one fixed order.
#include <algorithm>
#include <cmath>

#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"
#include "trainer/cuda/kernels/partial_sums.cuh"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kColumns = 64;  // of a block of column_sum: two for each lane of a warp
constexpr size_t kMaxRowBlocks = 512;

__global__ void add_up(const float* partial, size_t count, size_t stride, size_t width, float* to, bool accumulate) {
  const size_t i = global_thread();
  if (i >= width) return;
  float sum = accumulate ? to[i] : 0.0f;
  for (size_t part = 0; part < count; ++part) sum += partial[part * stride + i];
  to[i] = sum;
}

// Sums of the block's columns over its rows: each warp takes every eighth row, then warps are added in order.
__global__ void column_sum(size_t rows, size_t n, size_t rows_per_block, const BF16* x, float* partial) {
  __shared__ float sums[kThreads / kWarp][kColumns];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const size_t column = size_t{blockIdx.x} * kColumns + lane * 2;
  const size_t first = blockIdx.y * rows_per_block,
               last = first + rows_per_block < rows ? first + rows_per_block : rows;
  float a = 0, b = 0;
  for (size_t row = first + warp; row < last; row += kThreads / kWarp) {
    if (column < n) a += to_float(x[row * n + column]);
    if (column + 1 < n) b += to_float(x[row * n + column + 1]);
  }
  sums[warp][lane * 2] = a;
  sums[warp][lane * 2 + 1] = b;
  __syncthreads();
  const size_t own = size_t{blockIdx.x} * kColumns + threadIdx.x;
  if (threadIdx.x >= kColumns || own >= n) return;
  float sum = 0;
  for (unsigned i = 0; i < kThreads / kWarp; ++i) sum += sums[i][threadIdx.x];
  partial[blockIdx.y * n + own] = sum;
}

template <bool kSquares>
__global__ void block_sums(size_t elements, const float* x, double* partial) {
  __shared__ double scratch[kWarp];
  const size_t first = size_t{blockIdx.x} * kSumBlock;
  const size_t last = first + kSumBlock < elements ? first + kSumBlock : elements;
  double sum = 0;
  for (size_t i = first + threadIdx.x; i < last; i += kThreads) {
    const double value = x[i];
    sum += kSquares ? value * value : value;
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// The binary tree over blocks, by one block of threads.
__global__ void tree_sum(double* partial, size_t count, double* out, bool accumulate) {
  for (size_t step = 1; step < count; step *= 2) {
    for (size_t i = threadIdx.x * 2 * step; i + step < count; i += blockDim.x * 2 * step)
      partial[i] += partial[i + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) *out = (accumulate ? *out : 0) + (count == 0 ? 0 : partial[0]);
}

__global__ void summarize(Summarize op) {
  GradientSummary summary;
  double square_sum = op.square_sum[0];
  for (size_t i = 1; i < op.parts; ++i) square_sum += op.square_sum[i];
  summary.norm = sqrt(square_sum) / op.tokens;
  summary.finite = std::isfinite(summary.norm) && summary.norm <= op.limit ? 1 : 0;
  summary.scale = 1 / op.tokens;
  if (op.max_norm > 0 && summary.norm > op.max_norm) summary.scale *= op.max_norm / summary.norm;
  *op.out = summary;
}

template <int N>
__global__ void sum_parts(SumParts<BF16> op, size_t packs, size_t row_packs) {
  const size_t i = global_thread();
  if (i >= packs) return;
  float sum[N], part[N];
  load(sum, op.parts + i * N);
  for (size_t rank = 1; rank < op.count; ++rank) {
    load(part, op.parts + (rank * packs + i) * N);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += part[j];
  }
  if (op.bias != nullptr) {
    load(part, op.bias + i % row_packs * N);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += part[j];
  }
  store(op.out + i * N, sum);
}

template <bool kSquares>
void sum(Queue queue, const Workspace& workspace, size_t elements, const float* x, double* out,
         bool accumulate = false) {
  const size_t blocks = ceil_div(elements, kSumBlock);
  auto* partial = workspace.take<double>(blocks);
  if (blocks > 0) launch(block_sums<kSquares>, static_cast<unsigned>(blocks), kThreads, 0, queue, elements, x, partial);
  launch(tree_sum, 1, 1024, 0, queue, partial, blocks, out, accumulate);
}

}  // namespace

void add_partials(Queue queue, const float* partial, size_t count, size_t stride, size_t width, float* to,
                  bool accumulate) {
  launch(add_up, static_cast<unsigned>(ceil_div(width, kThreads)), kThreads, 0, queue, partial, count, stride, width,
         to, accumulate);
}

void Launcher::operator()(const ColumnSum<BF16>& op) const {
  const size_t rows_per_block = std::max<size_t>(64, ceil_div(op.rows, kMaxRowBlocks));
  const size_t blocks = ceil_div(op.rows, rows_per_block);
  auto* partial = workspace.take<float>(blocks * op.n);
  launch(column_sum, dim3(static_cast<unsigned>(ceil_div(op.n, kColumns)), static_cast<unsigned>(blocks)), kThreads, 0,
         queue, op.rows, op.n, rows_per_block, op.x, partial);
  add_partials(queue, partial, blocks, op.n, op.n, op.sums, op.accumulate);
}

void Launcher::operator()(const Sum<float>& op) const { sum<false>(queue, workspace, op.elements, op.x, op.sum); }

void Launcher::operator()(const SquareSum<float>& op) const {
  sum<true>(queue, workspace, op.elements, op.x, op.sum, op.accumulate);
}

void Launcher::operator()(const SumParts<BF16>& op) const {
  const size_t elements = op.rows * op.width;
  if (packed(op.width, op.parts, op.out, op.bias)) {
    launch(sum_parts<kPack>, static_cast<unsigned>(ceil_div(elements / kPack, kThreads)), kThreads, 0, queue, op,
           elements / kPack, op.width / kPack);
  } else {
    launch(sum_parts<1>, static_cast<unsigned>(ceil_div(elements, kThreads)), kThreads, 0, queue, op, elements,
           op.width);
  }
}

void Launcher::operator()(const Summarize& op) const { launch(summarize, 1, 1, 0, queue, op); }

}  // namespace pitcrew::trainer::cuda
