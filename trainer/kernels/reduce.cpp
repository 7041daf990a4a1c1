#include "trainer/kernels/reduce.hpp"

#include <algorithm>
#include <cmath>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

// Adds `count` partial sums as a binary tree over their numbers: what a rank that holds a slice could do as well.
double tree_sum(double* partial, size_t count) {
  for (size_t step = 1; step < count; step *= 2) {
    for (size_t i = 0; i + step < count; i += 2 * step) partial[i] += partial[i + step];
  }
  return count == 0 ? 0 : partial[0];
}

template <typename T, typename F>
double sum_blocks(WorkerPool& workers, size_t elements, const T* x, F block_sum) {
  const size_t blocks = (elements + kSumBlock - 1) / kSumBlock;
  auto* partial = reinterpret_cast<double*>(workers.shared(std::max<size_t>(1, blocks) * sizeof(double)));
  workers.run(blocks, [&](size_t part, unsigned) {
    const size_t first = part * kSumBlock;
    partial[part] = block_sum(std::min(kSumBlock, elements - first), x + first);
  });
  return tree_sum(partial, blocks);
}

}  // namespace

template <typename T>
void run(WorkerPool& workers, const Add<T>& op) {
  const Inner<T>& in = inner<T>();
  workers.run((op.elements + kSumBlock - 1) / kSumBlock, [&](size_t part, unsigned) {
    const size_t first = part * kSumBlock;
    in.add(std::min(kSumBlock, op.elements - first), op.into + first, op.from + first);
  });
}

template <typename T>
void run(WorkerPool& workers, const Sum<T>& op) {
  *op.sum = sum_blocks(workers, op.elements, op.x, inner<T>().sum);
}

template <typename T>
void run(WorkerPool& workers, const SquareSum<T>& op) {
  const double sum = sum_blocks(workers, op.elements, op.x, inner<T>().square_sum);
  *op.sum = op.accumulate ? *op.sum + sum : sum;
}

template <typename T>
void run(WorkerPool& workers, const SumParts<T>& op) {
  const Inner<T>& in = inner<T>();
  const size_t part = op.rows * op.width;
  workers.run(op.rows, [&](size_t row, unsigned) {
    T* out = op.out + row * op.width;
    const T* from = op.parts + row * op.width;
    std::copy_n(from, op.width, out);
    for (size_t i = 1; i < op.count; ++i) in.add(op.width, out, from + i * part);
    if (op.bias != nullptr) in.add(op.width, out, op.bias);
  });
}

void run(WorkerPool&, const Summarize& op) {
  GradientSummary summary;
  double square_sum = op.square_sum[0];
  for (size_t i = 1; i < op.parts; ++i) square_sum += op.square_sum[i];
  summary.norm = std::sqrt(square_sum) / op.tokens;
  summary.finite = std::isfinite(summary.norm) && summary.norm <= op.limit ? 1 : 0;
  summary.scale = 1 / op.tokens;
  if (op.max_norm > 0 && summary.norm > op.max_norm) summary.scale *= op.max_norm / summary.norm;
  *op.out = summary;
}

template void run(WorkerPool&, const Add<float>&);
template void run(WorkerPool&, const Add<double>&);
template void run(WorkerPool&, const Sum<float>&);
template void run(WorkerPool&, const Sum<double>&);
template void run(WorkerPool&, const SquareSum<float>&);
template void run(WorkerPool&, const SquareSum<double>&);
template void run(WorkerPool&, const SumParts<float>&);
template void run(WorkerPool&, const SumParts<double>&);

}  // namespace pitcrew::trainer
