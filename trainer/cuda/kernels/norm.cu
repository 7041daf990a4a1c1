// LayerNorm and RMSNorm, forward with the residual's addition and backward.
#include <algorithm>

#include "lib/base/result.hpp"
#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"
#include "trainer/cuda/kernels/partial_sums.cuh"

namespace pitcrew::trainer::cuda {

namespace {

// Blocks that share the rows of a backward pass; fixed, since weights' gradients are added block by block.
constexpr unsigned kBackwardBlocks = 256;

struct NormForward {
  size_t width;
  const BF16 *x, *residual;
  BF16* sum;
  const BF16 *weight, *bias;
  BF16* out;
  float *mean, *rstd;
  float epsilon;
};

// A block per row. The row stays in shared memory, as it is stored: what the backward pass will find.
template <int N, bool kCentered>
__global__ void norm_forward(NormForward op) {
  __shared__ float scratch[kWarp];
  BF16* row = dynamic_shared<BF16>();
  const size_t first = blockIdx.x * op.width;
  float sum = 0, squares = 0;
  for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
    float values[N];
    load(values, op.x + first + i);
    if (op.residual != nullptr) {
      float other[N];
      load(other, op.residual + first + i);
#pragma unroll
      for (int j = 0; j < N; ++j) values[j] = rounded(values[j] + other[j]);
      store(op.sum + first + i, values);
    }
    store(row + i, values);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum += values[j];
      squares += values[j] * values[j];
    }
  }
  const float per_width = 1.0f / static_cast<float>(op.width);
  float mean = 0, variance;
  if constexpr (kCentered) {
    mean = block_sum(sum, scratch) * per_width;
    float deviations = 0;
    for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
      float values[N];
      load(values, row + i);
#pragma unroll
      for (int j = 0; j < N; ++j) deviations += (values[j] - mean) * (values[j] - mean);
    }
    variance = block_sum(deviations, scratch) * per_width;
  } else {
    variance = block_sum(squares, scratch) * per_width;
  }
  const float rstd = 1.0f / sqrtf(variance + op.epsilon);
  if (threadIdx.x == 0) {
    if constexpr (kCentered) op.mean[blockIdx.x] = mean;
    op.rstd[blockIdx.x] = rstd;
  }
  for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
    float values[N], weight[N];
    load(values, row + i);
    load(weight, op.weight + i);
#pragma unroll
    for (int j = 0; j < N; ++j) values[j] = (values[j] - mean) * rstd * weight[j];
    if constexpr (kCentered) {
      float bias[N];
      load(bias, op.bias + i);
#pragma unroll
      for (int j = 0; j < N; ++j) values[j] += bias[j];
    }
    store(op.out + first + i, values);
  }
}

struct NormBackward {
  size_t rows, width;
  const BF16 *x, *weight;
  const float *mean, *rstd;
  const BF16* d_out;
  BF16* d_x;
  bool accumulate;
  float* partial;  // [blocks][weights' gradients, then biases']
};

// Each block takes rows of its own and keeps the sums of its columns in shared memory; a column belongs to one thread.
template <int N, bool kCentered>
__global__ void norm_backward(NormBackward op) {
  __shared__ float scratch[kWarp];
  float* weight_sums = dynamic_shared<float>();
  float* bias_sums = weight_sums + op.width;
  for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
    for (int j = 0; j < N; ++j) {
      weight_sums[i + j] = 0;
      if constexpr (kCentered) bias_sums[i + j] = 0;
    }
  }
  const float per_width = 1.0f / static_cast<float>(op.width);
  for (size_t row = blockIdx.x; row < op.rows; row += gridDim.x) {
    const size_t first = row * op.width;
    const float mean = kCentered ? op.mean[row] : 0.0f, rstd = op.rstd[row];
    float sum_g = 0, sum_gh = 0;
    for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
      float x[N], d[N], weight[N];
      load(x, op.x + first + i);
      load(d, op.d_out + first + i);
      load(weight, op.weight + i);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float h = (x[j] - mean) * rstd, g = d[j] * weight[j];
        sum_g += g;
        sum_gh += g * h;
        weight_sums[i + j] += d[j] * h;
        if constexpr (kCentered) bias_sums[i + j] += d[j];
      }
    }
    const float mean_g = kCentered ? block_sum(sum_g, scratch) * per_width : 0.0f;
    const float mean_gh = block_sum(sum_gh, scratch) * per_width;
    for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
      float x[N], d[N], weight[N], to[N];
      load(x, op.x + first + i);
      load(d, op.d_out + first + i);
      load(weight, op.weight + i);
      if (op.accumulate) load(to, op.d_x + first + i);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float h = (x[j] - mean) * rstd;
        const float d_x = rstd * (d[j] * weight[j] - mean_g - h * mean_gh);
        to[j] = op.accumulate ? to[j] + d_x : d_x;
      }
      store(op.d_x + first + i, to);
    }
  }
  const size_t columns = (kCentered ? 2 : 1) * op.width;
  for (size_t i = threadIdx.x * N; i < op.width; i += blockDim.x * N) {
    for (int j = 0; j < N; ++j) {
      op.partial[blockIdx.x * columns + i + j] = weight_sums[i + j];
      if constexpr (kCentered) op.partial[blockIdx.x * columns + op.width + i + j] = bias_sums[i + j];
    }
  }
}

unsigned threads_for(size_t packs) {
  return static_cast<unsigned>(std::clamp<size_t>(ceil_div(packs, kWarp) * kWarp, 2 * kWarp, 8 * kWarp));
}

template <bool kCentered>
void forward(Queue queue, size_t rows, const NormForward& op) {
  const size_t shared = op.width * sizeof(BF16);
  const auto grid = static_cast<unsigned>(rows);
  if (packed(op.width, op.x, op.residual, op.sum, op.weight, op.bias, op.out)) {
    launch(norm_forward<kPack, kCentered>, grid, threads_for(op.width / kPack), shared, queue, op);
  } else {
    launch(norm_forward<1, kCentered>, grid, threads_for(op.width), shared, queue, op);
  }
}

template <bool kCentered>
void backward(Queue queue, const Workspace& workspace, NormBackward op, float* d_weight, float* d_bias,
              bool accumulate) {
  const size_t columns = (kCentered ? 2 : 1) * op.width, shared = columns * sizeof(float);
  PITCREW_INVARIANT(shared <= 224 * 1024, "a norm this wide has no kernel; cuda::problems() refuses such models");
  const auto blocks = static_cast<unsigned>(std::min<size_t>(op.rows, kBackwardBlocks));
  op.partial = workspace.take<float>(blocks * columns);
  if (packed(op.width, op.x, op.weight, op.d_out, op.d_x)) {
    launch(norm_backward<kPack, kCentered>, blocks, threads_for(op.width / kPack), shared, queue, op);
  } else {
    launch(norm_backward<1, kCentered>, blocks, threads_for(op.width), shared, queue, op);
  }
  add_partials(queue, op.partial, blocks, columns, op.width, d_weight, accumulate);
  if constexpr (kCentered) add_partials(queue, op.partial + op.width, blocks, columns, op.width, d_bias, accumulate);
}

}  // namespace

void Launcher::operator()(const LayerNormForward<BF16>& op) const {
  forward<true>(queue, op.rows,
                {op.width, op.x, op.residual, op.sum, op.weight, op.bias, op.out, op.mean, op.rstd,
                 static_cast<float>(op.epsilon)});
}

void Launcher::operator()(const RmsNormForward<BF16>& op) const {
  forward<false>(queue, op.rows,
                 {op.width, op.x, op.residual, op.sum, op.weight, nullptr, op.out, nullptr, op.rstd,
                  static_cast<float>(op.epsilon)});
}

void Launcher::operator()(const LayerNormBackward<BF16>& op) const {
  backward<true>(queue, workspace,
                 {op.rows, op.width, op.x, op.weight, op.mean, op.rstd, op.d_out, op.d_x, op.accumulate_x, nullptr},
                 op.d_weight, op.d_bias, op.accumulate_weight);
}

void Launcher::operator()(const RmsNormBackward<BF16>& op) const {
  backward<false>(queue, workspace,
                  {op.rows, op.width, op.x, op.weight, nullptr, op.rstd, op.d_out, op.d_x, op.accumulate_x, nullptr},
                  op.d_weight, nullptr, op.accumulate_weight);
}

}  // namespace pitcrew::trainer::cuda
