#include "trainer/kernels/adamw.hpp"

#include <algorithm>
#include <cmath>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kBlock = 16384;

// By repeated squaring: the library's pow differs from machine to machine.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent /= 2, base *= base) {
    if (exponent % 2 == 1) result *= base;
  }
  return result;
}

}  // namespace

template <typename T>
void run(WorkerPool& workers, const AdamW<T>& op) {
  if (op.gradient->finite == 0) return;
  const double correction1 = 1 - power(op.beta1, op.step), correction2 = 1 - power(op.beta2, op.step);
  const T step_size = static_cast<T>(op.learning_rate / correction1);
  const T root_correction = static_cast<T>(1 / std::sqrt(correction2));
  const T decay = static_cast<T>(1 - op.learning_rate * op.weight_decay);
  workers.run((op.elements + kBlock - 1) / kBlock, [&](size_t part, unsigned) {
    const size_t i = part * kBlock;
    inner<T>().adamw(std::min(kBlock, op.elements - i), op.params + i, op.m + i, op.v + i, op.gradients + i,
                     static_cast<T>(op.gradient->scale), static_cast<T>(op.beta1), static_cast<T>(op.beta2), step_size,
                     root_correction, static_cast<T>(op.epsilon), decay);
  });
}

template void run(WorkerPool&, const AdamW<float>&);
template void run(WorkerPool&, const AdamW<double>&);

}  // namespace pitcrew::trainer
