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

__device__ __forceinline__ size_t target_of(const int32_t* tokens, size_t stride, size_t length, size_t prediction) {
  return static_cast<size_t>(tokens[prediction / length * stride + prediction % length + 1]);
}

// Maximum and sum of a row's first `used` logits in one pass, the same in every thread of the block.
template <int N>
__device__ __forceinline__ Softmax softmax_of(const BF16* logits, size_t used, Softmax* parts) {
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
  return all;
}

// logits = factor × exp(logits - shift), minus scale at `target`; what is not `used` becomes 0.
template <int N>
__device__ __forceinline__ void write_gradient(const CrossEntropy<BF16>& op, BF16* logits, size_t used, size_t target,
                                               Softmax all) {
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

// A block per prediction: one pass for maximum and sum together, one that writes.
template <int N>
__global__ void cross_entropy(CrossEntropy<BF16> op, size_t used) {
  __shared__ Softmax parts[kThreads / kWarp];
  BF16* logits = op.logits + blockIdx.x * op.vocab;
  const size_t target = target_of(op.tokens, op.token_stride, op.length, op.first_row + blockIdx.x);
  const Softmax all = softmax_of<N>(logits, used, parts);
  if (threadIdx.x == 0) op.losses[blockIdx.x] = (all.shift - to_float(logits[target])) + natural_log(all.sum);
  if (!op.backward) return;
  // The target's logit has been read before it is written over.
  __syncthreads();
  write_gradient<N>(op, logits, used, target, all);
}

template <int N>
__global__ void cross_entropy_part(CrossEntropyPart<BF16> op) {
  __shared__ Softmax parts[kThreads / kWarp];
  const BF16* logits = op.logits + blockIdx.x * op.vocab;
  const Softmax own = softmax_of<N>(logits, op.used, parts);
  if (threadIdx.x != 0) return;
  const size_t target = target_of(op.tokens, op.token_stride, op.length, op.first_row + blockIdx.x) - op.first;
  op.parts[blockIdx.x] = {own.shift, own.sum, target < op.used ? to_float(logits[target]) : 0.0f};
}

template <int N>
__global__ void cross_entropy_of_parts(CrossEntropy<BF16> op, size_t rows) {
  Softmax all{-INFINITY, 0};
  float target_logit = 0;
  for (size_t rank = 0; rank < op.ranks; ++rank) {
    const SoftmaxPart<float> part = op.parts[rank * rows + blockIdx.x];
    all = join(all, {part.shift, part.sum});
    target_logit += part.target;
  }
  if (threadIdx.x == 0) op.losses[blockIdx.x] = (all.shift - target_logit) + natural_log(all.sum);
  if (!op.backward) return;
  const size_t target = target_of(op.tokens, op.token_stride, op.length, op.first_row + blockIdx.x) - op.first;
  write_gradient<N>(op, op.logits + blockIdx.x * op.vocab, op.used, target, all);
}

}  // namespace

void Launcher::operator()(const CrossEntropyPart<BF16>& op) const {
  const auto rows = static_cast<unsigned>(op.rows);
  if (packed(op.vocab, op.logits)) {
    launch(cross_entropy_part<kPack>, rows, kThreads, 0, queue, op);
  } else {
    launch(cross_entropy_part<1>, rows, kThreads, 0, queue, op);
  }
}

void Launcher::operator()(const CrossEntropy<BF16>& op) const {
  const size_t used = op.used == 0 ? op.vocab : op.used;
  const auto rows = static_cast<unsigned>(op.rows);
  const bool pack = packed(op.vocab, op.logits);
  if (op.parts != nullptr) {
    launch(pack ? cross_entropy_of_parts<kPack> : cross_entropy_of_parts<1>, rows, kThreads, 0, queue, op, op.rows);
  } else if (pack) {
    launch(cross_entropy<kPack>, rows, kThreads, 0, queue, op, used);
  } else {
    launch(cross_entropy<1>, rows, kThreads, 0, queue, op, used);
  }
}

}  // namespace pitcrew::trainer::cuda
