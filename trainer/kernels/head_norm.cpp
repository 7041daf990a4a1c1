#include "trainer/kernels/head_norm.hpp"

#include <algorithm>
#include <cmath>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kRows = 16;

}  // namespace

template <typename T>
void run(WorkerPool& workers, const HeadNormForward<T>& op) {
  const Inner<T>& in = inner<T>();
  const size_t normed = op.heads + op.kv_heads, width = op.head_width;
  workers.run((op.rows + kRows - 1) / kRows, [&](size_t part, unsigned) {
    for (size_t row = part * kRows; row < std::min(op.rows, (part + 1) * kRows); ++row) {
      for (size_t head = 0; head < normed; ++head) {
        T* x = op.qkv + row * op.row_stride + head * width;
        T* kept = op.kept + (row * normed + head) * width;
        std::copy_n(x, width, kept);
        const T mean_square = in.dot(width, kept, kept) / static_cast<T>(width);
        const T rstd = T{1} / std::sqrt(mean_square + static_cast<T>(op.epsilon));
        op.rstd[row * normed + head] = rstd;
        in.normalize(width, kept, T{0}, rstd, head < op.heads ? op.q_weight : op.k_weight, nullptr, x);
      }
    }
  });
}

// Rows are cut into blocks by their number alone; each block sums its own weight gradients, and the blocks' sums are
// added in their order.
template <typename T>
void run(WorkerPool& workers, const HeadNormBackward<T>& op) {
  const Inner<T>& in = inner<T>();
  constexpr size_t kBlocks = 32;
  const size_t normed = op.heads + op.kv_heads, width = op.head_width;
  const size_t block = std::max<size_t>(kRows, (op.rows + kBlocks - 1) / kBlocks);
  const size_t blocks = (op.rows + block - 1) / block;
  T* partial = reinterpret_cast<T*>(workers.shared(2 * blocks * width * sizeof(T)));
  workers.run(blocks, [&](size_t part, unsigned worker) {
    T* sums = partial + 2 * part * width;
    std::fill_n(sums, 2 * width, T{0});
    T* d_out = reinterpret_cast<T*>(workers.scratch(worker, width * sizeof(T)));
    for (size_t row = part * block; row < std::min(op.rows, (part + 1) * block); ++row) {
      for (size_t head = 0; head < normed; ++head) {
        const bool query = head < op.heads;
        T* d = op.d_qkv + row * op.row_stride + head * width;
        std::copy_n(d, width, d_out);
        in.normalize_backward(width, op.kept + (row * normed + head) * width, T{0}, op.rstd[row * normed + head], false,
                              query ? op.q_weight : op.k_weight, d_out, d, false, query ? sums : sums + width, nullptr);
      }
    }
  });
  for (T* to : {op.d_q_weight, op.d_k_weight}) {
    if (!op.accumulate_weight) std::fill_n(to, width, T{0});
    for (size_t b = 0; b < blocks; ++b) in.add(width, to, partial + 2 * b * width + (to == op.d_q_weight ? 0 : width));
  }
}

template void run(WorkerPool&, const HeadNormForward<float>&);
template void run(WorkerPool&, const HeadNormForward<double>&);
template void run(WorkerPool&, const HeadNormBackward<float>&);
template void run(WorkerPool&, const HeadNormBackward<double>&);

}  // namespace pitcrew::trainer
