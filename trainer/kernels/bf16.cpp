#include "trainer/kernels/bf16.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace pitcrew::trainer {

namespace {

// A BF16 tensor as floats for as long as an operation runs. What was taken by out() or in_place() is rounded back by
// the destructor.
class Floats {
 public:
  static Floats in(const BF16* from, size_t count) {
    Floats floats(nullptr, from == nullptr ? 0 : count);
    for (size_t i = 0; i < floats.values_.size(); ++i) floats.values_[i] = static_cast<float>(from[i]);
    return floats;
  }
  static Floats in_place(BF16* data, size_t count) {
    Floats floats = in(data, count);
    floats.to_ = data;
    return floats;
  }
  static Floats out(BF16* to, size_t count) { return {to, to == nullptr ? 0 : count}; }

  Floats(Floats&& other) noexcept : to_(std::exchange(other.to_, nullptr)), values_(std::move(other.values_)) {}
  Floats& operator=(Floats&&) = delete;
  ~Floats() {
    if (to_ == nullptr) return;
    for (size_t i = 0; i < values_.size(); ++i) to_[i] = BF16(values_[i]);
  }

  // Null for a tensor that isn't there.
  operator float*() { return values_.empty() ? nullptr : values_.data(); }

 private:
  Floats(BF16* to, size_t count) : to_(to), values_(count) {}

  BF16* to_ = nullptr;
  std::vector<float> values_;
};

size_t span(size_t rows, size_t stride, size_t columns) { return rows == 0 ? 0 : (rows - 1) * stride + columns; }

// x + residual rounded, as it is stored and normed.
void add_residual(WorkerPool&, const BF16* x, const BF16* residual, BF16* sum, size_t elements) {
  for (size_t i = 0; i < elements; ++i) sum[i] = BF16(static_cast<float>(x[i]) + static_cast<float>(residual[i]));
}

}  // namespace

void run(WorkerPool& workers, const Matmul<BF16>& op) {
  Floats a = Floats::in(op.a, op.a_transposed ? span(op.k, op.a_stride, op.m) : span(op.m, op.a_stride, op.k));
  Floats b = Floats::in(op.b, op.b_transposed ? span(op.n, op.b_stride, op.k) : span(op.k, op.b_stride, op.n));
  Floats c = Floats::in_place(op.c, span(op.m, op.c_stride, op.n));
  Floats bias = Floats::in(op.bias, op.n);
  run(workers, Matmul<float>{op.m, op.n, op.k, a, op.a_stride, op.a_transposed, b, op.b_stride, op.b_transposed, c,
                             op.c_stride, op.accumulate, bias});
}

void run(WorkerPool& workers, const WeightGradient<BF16>& op) {
  Floats d_out = Floats::in(op.d_out, op.rows * op.out), x = Floats::in(op.x, op.rows * op.in);
  run(workers, WeightGradient<float>{op.rows, op.out, op.in, d_out, x, op.gradient, op.accumulate});
}

void run(WorkerPool& workers, const ColumnSum<BF16>& op) {
  Floats x = Floats::in(op.x, op.rows * op.n);
  run(workers, ColumnSum<float>{op.rows, op.n, x, op.sums, op.accumulate});
}

void run(WorkerPool&, const EmbeddingForward<BF16>& op) {
  const auto held = [](const HeldRows& rows, size_t row) { return row >= rows.first && row - rows.first < rows.count; };
  for (size_t row = 0; row < op.sequences * op.length; ++row) {
    const size_t s = row / op.length, t = row % op.length;
    const auto token = static_cast<size_t>(op.tokens[s * op.token_stride + t]);
    const bool known = held(op.held, token), positioned = op.positions != nullptr && held(op.held_positions, t);
    BF16* to = op.out + row * op.width;
    for (size_t i = 0; i < op.width; ++i) {
      const float value = known ? static_cast<float>(op.table[(token - op.held.first) * op.width + i]) : 0;
      to[i] = BF16(positioned ? value + static_cast<float>(op.positions[(t - op.held_positions.first) * op.width + i])
                              : value);
    }
  }
}

void run(WorkerPool& workers, const EmbeddingBackward<BF16>& op) {
  Floats d_out = Floats::in(op.d_out, op.sequences * op.length * op.width);
  run(workers, EmbeddingBackward<float>{op.sequences, op.length, op.width, op.tokens, op.token_stride, d_out,
                                        op.d_table, op.d_positions, op.held, op.held_positions});
}

void run(WorkerPool& workers, const LayerNormForward<BF16>& op) {
  const size_t elements = op.rows * op.width;
  if (op.residual != nullptr) add_residual(workers, op.x, op.residual, op.sum, elements);
  Floats x = Floats::in(op.residual != nullptr ? op.sum : op.x, elements), out = Floats::out(op.out, elements);
  Floats weight = Floats::in(op.weight, op.width), bias = Floats::in(op.bias, op.width);
  run(workers,
      LayerNormForward<float>{op.rows, op.width, x, nullptr, nullptr, weight, bias, out, op.mean, op.rstd, op.epsilon});
}

void run(WorkerPool& workers, const LayerNormBackward<BF16>& op) {
  const size_t elements = op.rows * op.width;
  Floats x = Floats::in(op.x, elements), d_out = Floats::in(op.d_out, elements),
         d_x = Floats::in_place(op.d_x, elements), weight = Floats::in(op.weight, op.width);
  run(workers, LayerNormBackward<float>{op.rows, op.width, x, weight, op.mean, op.rstd, d_out, d_x, op.accumulate_x,
                                        op.d_weight, op.d_bias, op.accumulate_weight});
}

void run(WorkerPool& workers, const RmsNormForward<BF16>& op) {
  const size_t elements = op.rows * op.width;
  if (op.residual != nullptr) add_residual(workers, op.x, op.residual, op.sum, elements);
  Floats x = Floats::in(op.residual != nullptr ? op.sum : op.x, elements), out = Floats::out(op.out, elements);
  Floats weight = Floats::in(op.weight, op.width);
  run(workers, RmsNormForward<float>{op.rows, op.width, x, nullptr, nullptr, weight, out, op.rstd, op.epsilon});
}

void run(WorkerPool& workers, const RmsNormBackward<BF16>& op) {
  const size_t elements = op.rows * op.width;
  Floats x = Floats::in(op.x, elements), d_out = Floats::in(op.d_out, elements),
         d_x = Floats::in_place(op.d_x, elements), weight = Floats::in(op.weight, op.width);
  run(workers, RmsNormBackward<float>{op.rows, op.width, x, weight, op.rstd, d_out, d_x, op.accumulate_x, op.d_weight,
                                      op.accumulate_weight});
}

void run(WorkerPool& workers, const HeadNormForward<BF16>& op) {
  Floats qkv = Floats::in_place(op.qkv, op.rows * op.row_stride);
  Floats kept = Floats::out(op.kept, op.rows * (op.heads + op.kv_heads) * op.head_width);
  Floats q = Floats::in(op.q_weight, op.head_width), k = Floats::in(op.k_weight, op.head_width);
  run(workers, HeadNormForward<float>{op.rows, op.heads, op.kv_heads, op.head_width, op.row_stride, qkv, kept, q, k,
                                      op.rstd, op.epsilon});
}

void run(WorkerPool& workers, const HeadNormBackward<BF16>& op) {
  Floats d_qkv = Floats::in_place(op.d_qkv, op.rows * op.row_stride);
  Floats kept = Floats::in(op.kept, op.rows * (op.heads + op.kv_heads) * op.head_width);
  Floats q = Floats::in(op.q_weight, op.head_width), k = Floats::in(op.k_weight, op.head_width);
  run(workers, HeadNormBackward<float>{op.rows, op.heads, op.kv_heads, op.head_width, op.row_stride, d_qkv, kept, q, k,
                                       op.rstd, op.d_q_weight, op.d_k_weight, op.accumulate_weight});
}

void run(WorkerPool& workers, const Rope<BF16>& op) {
  Floats x = Floats::in_place(op.x, op.sequences * op.length * op.row_stride);
  run(workers, Rope<float>{op.sequences, op.length, op.heads, op.head_width, op.row_stride, x, op.cosines, op.sines,
                           op.inverse});
}

void run(WorkerPool& workers, const AttentionForward<BF16>& op) {
  const size_t rows = op.sequences * op.length, width = op.heads * op.head_width;
  Floats qkv = Floats::in(op.qkv, rows * (width + 2 * op.kv_heads * op.head_width)),
         out = Floats::out(op.out, rows * width);
  run(workers,
      AttentionForward<float>{op.sequences, op.length, op.heads, op.kv_heads, op.head_width, qkv, out, op.log_sum});
}

void run(WorkerPool& workers, const AttentionBackward<BF16>& op) {
  const size_t rows = op.sequences * op.length, width = op.heads * op.head_width;
  const size_t qkv_elements = rows * (width + 2 * op.kv_heads * op.head_width);
  Floats qkv = Floats::in(op.qkv, qkv_elements), out = Floats::in(op.out, rows * width),
         d_out = Floats::in(op.d_out, rows * width), d_qkv = Floats::out(op.d_qkv, qkv_elements);
  run(workers, AttentionBackward<float>{op.sequences, op.length, op.heads, op.kv_heads, op.head_width, qkv, out,
                                        op.log_sum, d_out, d_qkv});
}

void run(WorkerPool& workers, const SwiGluForward<BF16>& op) {
  Floats gate_up = Floats::in(op.gate_up, op.rows * 2 * op.width), out = Floats::out(op.out, op.rows * op.width);
  run(workers, SwiGluForward<float>{op.rows, op.width, gate_up, out});
}

void run(WorkerPool& workers, const SwiGluBackward<BF16>& op) {
  Floats gate_up = Floats::in(op.gate_up, op.rows * 2 * op.width), d_out = Floats::in(op.d_out, op.rows * op.width),
         d_gate_up = Floats::out(op.d_gate_up, op.rows * 2 * op.width);
  run(workers, SwiGluBackward<float>{op.rows, op.width, gate_up, d_out, d_gate_up});
}

void run(WorkerPool& workers, const GeluForward<BF16>& op) {
  Floats x = Floats::in(op.x, op.elements), out = Floats::out(op.out, op.elements);
  run(workers, GeluForward<float>{op.elements, x, out});
}

void run(WorkerPool& workers, const GeluBackward<BF16>& op) {
  Floats x = Floats::in(op.x, op.elements), d_out = Floats::in(op.d_out, op.elements),
         d_x = Floats::out(op.d_x, op.elements);
  run(workers, GeluBackward<float>{op.elements, x, d_out, d_x});
}

void run(WorkerPool& workers, const CrossEntropyPart<BF16>& op) {
  Floats logits = Floats::in(op.logits, op.rows * op.vocab);
  run(workers, CrossEntropyPart<float>{op.rows, op.vocab, op.used, op.first, logits, op.tokens, op.token_stride,
                                       op.length, op.first_row, op.parts});
}

void run(WorkerPool& workers, const SumParts<BF16>& op) {
  const size_t part = op.rows * op.width;
  Floats parts = Floats::in(op.parts, op.count * part), out = Floats::out(op.out, part),
         bias = Floats::in(op.bias, op.width);
  run(workers, SumParts<float>{op.rows, op.width, op.count, parts, out, bias});
}

void run(WorkerPool& workers, const CrossEntropy<BF16>& op) {
  Floats logits =
      op.backward ? Floats::in_place(op.logits, op.rows * op.vocab) : Floats::in(op.logits, op.rows * op.vocab);
  run(workers, CrossEntropy<float>{op.rows, op.vocab, op.used, logits, op.tokens, op.token_stride, op.length,
                                   op.first_row, op.losses, op.backward, op.scale, op.parts, op.ranks, op.first});
}

void run(WorkerPool& workers, const AdamW<BF16>& op) {
  std::vector<float> joined(op.remainders != nullptr ? op.elements : 0);
  float* params = op.remainders != nullptr ? joined.data() : op.params;
  if (op.remainders != nullptr) run(workers, JoinMasters{op.elements, op.weights, op.remainders, params});
  run(workers, AdamW<float>{op.elements, params, op.m, op.v, op.gradients, nullptr, op.gradient, op.learning_rate,
                            op.beta1, op.beta2, op.epsilon, op.weight_decay, op.step});
  if (op.remainders != nullptr) {
    run(workers, SplitMasters{op.elements, params, op.weights, op.remainders});
  } else if (op.weights != nullptr) {
    run(workers, Cast<BF16>{op.elements, params, op.weights});
  }
}

}  // namespace pitcrew::trainer
