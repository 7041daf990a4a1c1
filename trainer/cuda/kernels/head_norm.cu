// RMSNorm over each query and key head.
#include <algorithm>

#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"
#include "trainer/cuda/kernels/partial_sums.cuh"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kWarps = 8;
constexpr unsigned kBackwardBlocks = 256;  // fixed, since weights' gradients are added block by block

// A warp per head of a row.
__global__ void head_norm_forward(HeadNormForward<BF16> op) {
  const size_t normed = op.heads + op.kv_heads, width = op.head_width;
  const size_t item = size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (item >= op.rows * normed) return;
  const size_t row = item / normed, head = item % normed, lane = threadIdx.x % kWarp;
  BF16* x = op.qkv + row * op.row_stride + head * width;
  BF16* kept = op.kept + item * width;
  const BF16* weight = head < op.heads ? op.q_weight : op.k_weight;
  float squares = 0;
  for (size_t i = lane; i < width; i += kWarp) {
    const float value = to_float(x[i]);
    squares += value * value;
    kept[i] = x[i];
  }
  const float variance = warp_sum(squares) / static_cast<float>(width);
  const float rstd = 1.0f / sqrtf(variance + static_cast<float>(op.epsilon));
  if (lane == 0) op.rstd[item] = rstd;
  for (size_t i = lane; i < width; i += kWarp) {
    const float out[1] = {to_float(kept[i]) * rstd * to_float(weight[i])};
    store(x + i, out);
  }
}

// Each warp takes heads of its own and sums their weights' gradients in shared memory, queries' and keys' apart.
__global__ void head_norm_backward(HeadNormBackward<BF16> op, float* partial) {
  const size_t normed = op.heads + op.kv_heads, width = op.head_width;
  const size_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float* sums = dynamic_shared<float>() + warp * 2 * width;
  for (size_t i = lane; i < 2 * width; i += kWarp) sums[i] = 0;
  __syncwarp();
  for (size_t item = size_t{blockIdx.x} * kWarps + warp; item < op.rows * normed; item += size_t{gridDim.x} * kWarps) {
    const size_t row = item / normed, head = item % normed;
    const bool query = head < op.heads;
    BF16* d = op.d_qkv + row * op.row_stride + head * width;
    const BF16* kept = op.kept + item * width;
    const BF16* weight = query ? op.q_weight : op.k_weight;
    float* own = sums + (query ? 0 : width);
    const float rstd = op.rstd[item];
    float sum = 0;
    for (size_t i = lane; i < width; i += kWarp) {
      const float h = to_float(kept[i]) * rstd, d_out = to_float(d[i]);
      sum += d_out * to_float(weight[i]) * h;
      own[i] += d_out * h;
    }
    const float mean = warp_sum(sum) / static_cast<float>(width);
    for (size_t i = lane; i < width; i += kWarp) {
      const float h = to_float(kept[i]) * rstd;
      const float d_x[1] = {rstd * (to_float(d[i]) * to_float(weight[i]) - h * mean)};
      store(d + i, d_x);
    }
  }
  __syncthreads();
  for (size_t i = threadIdx.x; i < 2 * width; i += blockDim.x) {
    float sum = 0;
    for (size_t other = 0; other < kWarps; ++other) sum += dynamic_shared<float>()[other * 2 * width + i];
    partial[blockIdx.x * 2 * width + i] = sum;
  }
}

}  // namespace

void Launcher::operator()(const HeadNormForward<BF16>& op) const {
  const size_t items = op.rows * (op.heads + op.kv_heads);
  launch(head_norm_forward, static_cast<unsigned>(ceil_div(items, kWarps)), kWarps * kWarp, 0, queue, op);
}

void Launcher::operator()(const HeadNormBackward<BF16>& op) const {
  const size_t items = op.rows * (op.heads + op.kv_heads), columns = 2 * op.head_width;
  const auto blocks = static_cast<unsigned>(std::min<size_t>(kBackwardBlocks, ceil_div(items, kWarps)));
  auto* partial = workspace.take<float>(blocks * columns);
  launch(head_norm_backward, blocks, kWarps * kWarp, kWarps * columns * sizeof(float), queue, op, partial);
  add_partials(queue, partial, blocks, columns, op.head_width, op.d_q_weight, op.accumulate_weight);
  add_partials(queue, partial + op.head_width, blocks, columns, op.head_width, op.d_k_weight, op.accumulate_weight);
}

}  // namespace pitcrew::trainer::cuda
