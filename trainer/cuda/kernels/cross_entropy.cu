// The loss of each prediction, and its gradient over the logits in place.
#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kThreads = 512;

// A running maximum and the sum of exponentials below it.
struct Softmax {
  float shift, sum;
};

__device__ __forceinline__ Softmax join(Softmax a, Softmax b) {
  const float shift = fmaxf(a.shift, b.shift);
  // Where nothing was seen the shift is -infinity and the sum 0.
  const float first = a.sum == 0 ? 0.0f : a.sum * fast_exp(a.shift - shift);
  const float second = b.sum == 0 ? 0.0f : b.sum * fast_exp(b.shift - shift);
  return {shift, first + second};
}

// A block per prediction: one pass for maximum and sum together, one that writes.
template <int N>
__global__ void cross_entropy(CrossEntropy<BF16> op, size_t used) {
  __shared__ Softmax parts[kThreads / kWarp];
  BF16* logits = op.logits + blockIdx.x * op.vocab;
  const size_t prediction = op.first_row + blockIdx.x;
  const auto target =
      static_cast<size_t>(op.tokens[prediction / op.length * op.token_stride + prediction % op.length + 1]);
  Softmax own{-INFINITY, 0};
  for (size_t i = threadIdx.x * N; i < used; i += kThreads * N) {
    float values[N];
    load(values, logits + i);
    float largest = -INFINITY;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if (i + j < used) largest = fmaxf(largest, values[j]);
    }
    if (largest > own.shift) own = {largest, own.sum == 0 ? 0.0f : own.sum * fast_exp(own.shift - largest)};
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if (i + j < used) own.sum += fast_exp(values[j] - own.shift);
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) own = join(own, {shuffle_xor(own.shift, step), shuffle_xor(own.sum, step)});
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = own;
  __syncthreads();
  Softmax all = parts[0];
  for (unsigned i = 1; i < kThreads / kWarp; ++i) all = join(all, parts[i]);
  if (threadIdx.x == 0) op.losses[blockIdx.x] = (all.shift - to_float(logits[target])) + natural_log(all.sum);
  if (!op.backward) return;
  // The target's logit has been read before it is written over.
  __syncthreads();
  const auto scale = static_cast<float>(op.scale);
  const float factor = scale / all.sum;
  for (size_t i = threadIdx.x * N; i < op.vocab; i += kThreads * N) {
    float values[N];
    load(values, logits + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      values[j] = i + j < used ? fast_exp(values[j] - all.shift) * factor - (i + j == target ? scale : 0.0f) : 0.0f;
    }
    store(logits + i, values);
  }
}

}  // namespace

void Launcher::operator()(const CrossEntropy<BF16>& op) const {
  const size_t used = op.used == 0 ? op.vocab : op.used;
  const auto rows = static_cast<unsigned>(op.rows);
  if (packed(op.vocab, op.logits)) {
    launch(cross_entropy<kPack>, rows, kThreads, 0, queue, op, used);
  } else {
    launch(cross_entropy<1>, rows, kThreads, 0, queue, op, used);
  }
}

}  // namespace pitcrew::trainer::cuda
