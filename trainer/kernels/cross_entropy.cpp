#include "trainer/kernels/cross_entropy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kRows = 16;

template <typename Op>
size_t target_of(const Op& op, size_t row) {
  const size_t prediction = op.first_row + row;
  return static_cast<size_t>(op.tokens[prediction / op.length * op.token_stride + prediction % op.length + 1]);
}

// exp(x) for x ≤ 0; a NaN stays one.
template <typename T>
T shrink(T x) {
  if (std::isnan(x)) return x;
  return x < T{-700} ? T{0} : static_cast<T>(portable_exp(x));
}

template <typename T>
SoftmaxPart<T> join(SoftmaxPart<T> a, const SoftmaxPart<T>& b) {
  if (b.sum == 0) return a;
  if (a.sum == 0) return b;
  const T shift = std::max(a.shift, b.shift);
  return {shift, a.sum * shrink(a.shift - shift) + b.sum * shrink(b.shift - shift), a.target + b.target};
}

// One row of a vocabulary that others have the rest of.
template <typename T>
void finish_row(const Inner<T>& in, const CrossEntropy<T>& op, size_t row) {
  SoftmaxPart<T> all = op.parts[row];
  for (size_t rank = 1; rank < op.ranks; ++rank) all = join(all, op.parts[rank * op.rows + row]);
  op.losses[row] = (all.shift - all.target) + static_cast<T>(portable_log(all.sum));
  if (!op.backward) return;
  T* logits = op.logits + row * op.vocab;
  if (op.used > 0) {
    T sum;
    const T shift = in.softmax(op.used, logits, T{1}, &sum);
    in.multiply_by(op.used, logits, shrink(shift - all.shift) * static_cast<T>(op.scale) / all.sum);
  }
  std::fill(logits + op.used, logits + op.vocab, T{0});
  const size_t target = target_of(op, row);
  if (target >= op.first && target - op.first < op.used) logits[target - op.first] -= static_cast<T>(op.scale);
}

}  // namespace

template <typename T>
void run(WorkerPool& workers, const CrossEntropyPart<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned worker) {
    T* scratch = reinterpret_cast<T*>(workers.scratch(worker, op.vocab * sizeof(T)));
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      const T* logits = op.logits + row * op.vocab;
      const size_t target = target_of(op, row);
      SoftmaxPart<T> own{-std::numeric_limits<T>::infinity(), 0, 0};
      if (op.used > 0) {
        std::copy_n(logits, op.used, scratch);
        own.shift = in.softmax(op.used, scratch, T{1}, &own.sum);
      }
      if (target >= op.first && target - op.first < op.used) own.target = logits[target - op.first];
      op.parts[row] = own;
    }
  });
}

template <typename T>
void run(WorkerPool& workers, const CrossEntropy<T>& op) {
  const Inner<T>& in = inner<T>();
  const size_t used = op.used == 0 ? op.vocab : op.used;
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      if (op.parts != nullptr) {
        finish_row(in, op, row);
        continue;
      }
      const size_t target = target_of(op, row);
      T* logits = op.logits + row * op.vocab;
      const T target_logit = logits[target];
      T sum;
      const T shift = in.softmax(used, logits, T{1}, &sum);
      op.losses[row] = (shift - target_logit) + static_cast<T>(portable_log(sum));
      if (!op.backward) continue;
      in.multiply_by(used, logits, static_cast<T>(op.scale) / sum);
      logits[target] -= static_cast<T>(op.scale);
      std::fill(logits + used, logits + op.vocab, T{0});
    }
  });
}

template void run(WorkerPool&, const CrossEntropyPart<float>&);
template void run(WorkerPool&, const CrossEntropyPart<double>&);
template void run(WorkerPool&, const CrossEntropy<float>&);
template void run(WorkerPool&, const CrossEntropy<double>&);

}  // namespace pitcrew::trainer
