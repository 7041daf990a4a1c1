#include "trainer/kernels/gelu.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kBlock = 16384;

template <typename F>
void in_blocks(WorkerPool& workers, size_t elements, F&& f) {
  workers.run((elements + kBlock - 1) / kBlock,
              [&](size_t part, unsigned) { f(part * kBlock, std::min(kBlock, elements - part * kBlock)); });
}

}  // namespace

template <typename T>
void run(WorkerPool& workers, const GeluForward<T>& op) {
  in_blocks(workers, op.elements, [&](size_t i, size_t n) { inner<T>().gelu(n, op.x + i, op.out + i); });
}

template <typename T>
void run(WorkerPool& workers, const GeluBackward<T>& op) {
  in_blocks(workers, op.elements,
            [&](size_t i, size_t n) { inner<T>().gelu_backward(n, op.x + i, op.d_out + i, op.d_x + i); });
}

template void run(WorkerPool&, const GeluForward<float>&);
template void run(WorkerPool&, const GeluForward<double>&);
template void run(WorkerPool&, const GeluBackward<float>&);
template void run(WorkerPool&, const GeluBackward<double>&);

}  // namespace pitcrew::trainer
