// Operations that take each element, or each pair, by itself.
#include <cmath>

#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kThreads = 256;

dim3 blocks_for(size_t packs) { return dim3(static_cast<unsigned>(ceil_div(packs, kThreads))); }

__device__ __forceinline__ float logistic(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

// tanh(√(2/π) (x + 0.044715 x³)).
__device__ __forceinline__ float gelu_tanh(float x) {
  const float inner = 0.79788456080286535588f * x * (1.0f + 0.044715f * x * x);
  return 1.0f - 2.0f / (fast_exp(2.0f * inner) + 1.0f);
}

template <int N>
__global__ void gelu_forward(size_t packs, const BF16* x, BF16* out) {
  const size_t i = global_thread();
  if (i >= packs) return;
  float values[N];
  load(values, x + i * N);
#pragma unroll
  for (float& value : values) value = 0.5f * value * (1.0f + gelu_tanh(value));
  store(out + i * N, values);
}

template <int N>
__global__ void gelu_backward(size_t packs, const BF16* x, const BF16* d_out, BF16* d_x) {
  const size_t i = global_thread();
  if (i >= packs) return;
  float values[N], d[N];
  load(values, x + i * N);
  load(d, d_out + i * N);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float v = values[j], t = gelu_tanh(v);
    const float slope = 0.79788456080286535588f * (1.0f + 3 * 0.044715f * v * v);
    d[j] *= 0.5f * (1.0f + t + v * (1.0f - t * t) * slope);
  }
  store(d_x + i * N, d);
}

template <int N>
__global__ void swiglu_forward(size_t packs, size_t row_packs, const BF16* gate_up, BF16* out) {
  const size_t i = global_thread();
  if (i >= packs) return;
  const size_t row = i / row_packs, column = i % row_packs * N, width = row_packs * N;
  float gate[N], up[N];
  load(gate, gate_up + row * 2 * width + column);
  load(up, gate_up + row * 2 * width + width + column);
#pragma unroll
  for (int j = 0; j < N; ++j) gate[j] *= logistic(gate[j]) * up[j];
  store(out + i * N, gate);
}

template <int N>
__global__ void swiglu_backward(size_t packs, size_t row_packs, const BF16* gate_up, const BF16* d_out,
                                BF16* d_gate_up) {
  const size_t i = global_thread();
  if (i >= packs) return;
  const size_t row = i / row_packs, column = i % row_packs * N, width = row_packs * N;
  const size_t at = row * 2 * width + column;
  float gate[N], up[N], d[N];
  load(gate, gate_up + at);
  load(up, gate_up + at + width);
  load(d, d_out + i * N);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float part = logistic(gate[j]), silu = gate[j] * part;
    gate[j] = d[j] * up[j] * (part + silu * (1.0f - part));
    up[j] = d[j] * silu;
  }
  store(d_gate_up + at, gate);
  store(d_gate_up + at + width, up);
}

struct Turn {
  size_t length, heads, half, row_stride;
  float sign;
};

template <int N>
__global__ void rope(size_t packs, Turn turn, BF16* x, const float* cosines, const float* sines) {
  const size_t i = global_thread();
  if (i >= packs) return;
  const size_t head_packs = turn.half / N, column = i % head_packs * N;
  const size_t head = i / head_packs % turn.heads, row = i / head_packs / turn.heads;
  BF16* at = x + row * turn.row_stride + head * 2 * turn.half + column;
  float a[N], b[N], c[N], s[N];
  load(a, at);
  load(b, at + turn.half);
  load(c, cosines + row % turn.length * turn.half + column);
  load(s, sines + row % turn.length * turn.half + column);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float old = a[j], sine = s[j] * turn.sign;
    a[j] = old * c[j] - b[j] * sine;
    b[j] = b[j] * c[j] + old * sine;
  }
  store(at, a);
  store(at + turn.half, b);
}

template <int N>
__global__ void embedding_forward(size_t packs, size_t row_packs, size_t length, size_t token_stride,
                                  const int32_t* tokens, const BF16* table, const BF16* positions, BF16* out,
                                  HeldRows held, HeldRows held_positions) {
  const size_t i = global_thread();
  if (i >= packs) return;
  const size_t row = i / row_packs, column = i % row_packs * N, width = row_packs * N;
  const size_t s = row / length, t = row % length;
  const size_t token = static_cast<size_t>(tokens[s * token_stride + t]) - held.first;
  float values[N] = {};
  if (token < held.count) load(values, table + token * width + column);
  if (positions != nullptr && t - held_positions.first < held_positions.count) {
    float position[N];
    load(position, positions + (t - held_positions.first) * width + column);
#pragma unroll
    for (int j = 0; j < N; ++j) values[j] += position[j];
  }
  store(out + i * N, values);
}

template <int N>
__global__ void add(size_t packs, float* into, const float* from) {
  const size_t i = global_thread();
  if (i >= packs) return;
  float a[N], b[N];
  load(a, into + i * N);
  load(b, from + i * N);
#pragma unroll
  for (int j = 0; j < N; ++j) a[j] += b[j];
  store(into + i * N, a);
}

template <int N>
__global__ void cast(size_t packs, const float* from, BF16* to, uint16_t* remainders) {
  const size_t i = global_thread();
  if (i >= packs) return;
  float values[N];
  load(values, from + i * N);
  store_masters(to + i * N, remainders == nullptr ? nullptr : remainders + i * N, values);
}

template <int N>
__global__ void join(size_t packs, const BF16* weights, const uint16_t* remainders, float* to) {
  const size_t i = global_thread();
  if (i >= packs) return;
  float values[N];
  load_masters(values, weights + i * N, remainders + i * N);
  store(to + i * N, values);
}

struct Step {
  float beta1, beta2, step_size, root_correction, epsilon, decay;
};

// One pass: moments, master, and the weight that follows from it. Where masters are in two halves, `params` is unused.
// Multiplications and additions are fused as written, so that both forms give the same bits.
template <int N, bool kHalves>
__global__ void adamw(size_t packs, Step step, const GradientSummary* gradient, float* params, float* m, float* v,
                      const float* gradients, BF16* weights, uint16_t* remainders) {
  const size_t i = global_thread();
  if (i >= packs || gradient->finite == 0) return;
  const auto scale = static_cast<float>(gradient->scale);
  float p[N], first[N], second[N], g[N];
  if constexpr (kHalves) {
    load_masters(p, weights + i * N, remainders + i * N);
  } else {
    load(p, params + i * N);
  }
  load(first, m + i * N);
  load(second, v + i * N);
  load(g, gradients + i * N);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float d = g[j] * scale;
    first[j] = fmaf(first[j], step.beta1, d * (1.0f - step.beta1));
    second[j] = fmaf(second[j], step.beta2, d * d * (1.0f - step.beta2));
    const float root = fmaf(sqrtf(second[j]), step.root_correction, step.epsilon);
    p[j] = fmaf(p[j], step.decay, -(step.step_size * first[j] / root));
  }
  store(m + i * N, first);
  store(v + i * N, second);
  if constexpr (kHalves) {
    store_masters(weights + i * N, remainders + i * N, p);
  } else {
    store(params + i * N, p);
    if (weights != nullptr) store_masters(weights + i * N, nullptr, p);
  }
}

// By repeated squaring, as on the CPU.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent /= 2, base *= base) {
    if (exponent % 2 == 1) result *= base;
  }
  return result;
}

}  // namespace

void Launcher::operator()(const GeluForward<BF16>& op) const {
  if (packed(op.elements, op.x, op.out)) {
    launch(gelu_forward<kPack>, blocks_for(op.elements / kPack), kThreads, 0, queue, op.elements / kPack, op.x, op.out);
  } else {
    launch(gelu_forward<1>, blocks_for(op.elements), kThreads, 0, queue, op.elements, op.x, op.out);
  }
}

void Launcher::operator()(const GeluBackward<BF16>& op) const {
  if (packed(op.elements, op.x, op.d_out, op.d_x)) {
    launch(gelu_backward<kPack>, blocks_for(op.elements / kPack), kThreads, 0, queue, op.elements / kPack, op.x,
           op.d_out, op.d_x);
  } else {
    launch(gelu_backward<1>, blocks_for(op.elements), kThreads, 0, queue, op.elements, op.x, op.d_out, op.d_x);
  }
}

void Launcher::operator()(const SwiGluForward<BF16>& op) const {
  if (packed(op.width, op.gate_up, op.out)) {
    const size_t packs = op.rows * op.width / kPack;
    launch(swiglu_forward<kPack>, blocks_for(packs), kThreads, 0, queue, packs, op.width / kPack, op.gate_up, op.out);
  } else {
    launch(swiglu_forward<1>, blocks_for(op.rows * op.width), kThreads, 0, queue, op.rows * op.width, op.width,
           op.gate_up, op.out);
  }
}

void Launcher::operator()(const SwiGluBackward<BF16>& op) const {
  if (packed(op.width, op.gate_up, op.d_out, op.d_gate_up)) {
    const size_t packs = op.rows * op.width / kPack;
    launch(swiglu_backward<kPack>, blocks_for(packs), kThreads, 0, queue, packs, op.width / kPack, op.gate_up, op.d_out,
           op.d_gate_up);
  } else {
    launch(swiglu_backward<1>, blocks_for(op.rows * op.width), kThreads, 0, queue, op.rows * op.width, op.width,
           op.gate_up, op.d_out, op.d_gate_up);
  }
}

void Launcher::operator()(const Rope<BF16>& op) const {
  const size_t half = op.head_width / 2, pairs = op.sequences * op.length * op.heads * half;
  const Turn turn{op.length, op.heads, half, op.row_stride, op.inverse ? -1.0f : 1.0f};
  if (packed(half, op.x, op.cosines, op.sines) && packed(op.row_stride)) {
    launch(rope<kPack>, blocks_for(pairs / kPack), kThreads, 0, queue, pairs / kPack, turn, op.x, op.cosines, op.sines);
  } else {
    launch(rope<1>, blocks_for(pairs), kThreads, 0, queue, pairs, turn, op.x, op.cosines, op.sines);
  }
}

void Launcher::operator()(const EmbeddingForward<BF16>& op) const {
  const size_t elements = op.sequences * op.length * op.width;
  if (packed(op.width, op.table, op.positions, op.out)) {
    launch(embedding_forward<kPack>, blocks_for(elements / kPack), kThreads, 0, queue, elements / kPack,
           op.width / kPack, op.length, op.token_stride, op.tokens, op.table, op.positions, op.out, op.held,
           op.held_positions);
  } else {
    launch(embedding_forward<1>, blocks_for(elements), kThreads, 0, queue, elements, op.width, op.length,
           op.token_stride, op.tokens, op.table, op.positions, op.out, op.held, op.held_positions);
  }
}

void Launcher::operator()(const Add<float>& op) const {
  if (packed(op.elements, op.into, op.from)) {
    launch(add<kPack>, blocks_for(op.elements / kPack), kThreads, 0, queue, op.elements / kPack, op.into, op.from);
  } else {
    launch(add<1>, blocks_for(op.elements), kThreads, 0, queue, op.elements, op.into, op.from);
  }
}

void Launcher::operator()(const Cast<BF16>& op) const { (*this)(SplitMasters{op.elements, op.from, op.to, nullptr}); }

void Launcher::operator()(const SplitMasters& op) const {
  const bool packs = packed(op.elements, op.masters, op.weights, op.remainders);
  const size_t count = packs ? op.elements / kPack : op.elements;
  if (count == 0) return;
  launch(packs ? cast<kPack> : cast<1>, blocks_for(count), kThreads, 0, queue, count, op.masters, op.weights,
         op.remainders);
}

void Launcher::operator()(const JoinMasters& op) const {
  const bool packs = packed(op.elements, op.masters, op.weights, op.remainders);
  const size_t count = packs ? op.elements / kPack : op.elements;
  if (count == 0) return;
  launch(packs ? join<kPack> : join<1>, blocks_for(count), kThreads, 0, queue, count, op.weights, op.remainders,
         op.masters);
}

void Launcher::operator()(const AdamW<BF16>& op) const {
  const double correction1 = 1 - power(op.beta1, op.step), correction2 = 1 - power(op.beta2, op.step);
  const Step step{static_cast<float>(op.beta1),
                  static_cast<float>(op.beta2),
                  static_cast<float>(op.learning_rate / correction1),
                  static_cast<float>(1 / std::sqrt(correction2)),
                  static_cast<float>(op.epsilon),
                  static_cast<float>(1 - op.learning_rate * op.weight_decay)};
  const bool packs = packed(op.elements, op.params, op.m, op.v, op.gradients, op.weights, op.remainders);
  const size_t count = packs ? op.elements / kPack : op.elements;
  if (count == 0) return;
  const auto kernel = op.remainders != nullptr ? (packs ? adamw<kPack, true> : adamw<1, true>)
                                               : (packs ? adamw<kPack, false> : adamw<1, false>);
  launch(kernel, blocks_for(count), kThreads, 0, queue, count, step, op.gradient, op.params, op.m, op.v, op.gradients,
         op.weights, op.remainders);
}

}  // namespace pitcrew::trainer::cuda
