#include "trainer/kernels/rope.hpp"

#include <numbers>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {

namespace {

double stretched(double frequency, const RopeScaling& scaling) {
  if (scaling.factor == 1) return frequency;
  const double waves = scaling.original_context * frequency / (2 * std::numbers::pi);  // in the original context
  if (waves > scaling.high_factor) return frequency;
  if (waves < scaling.low_factor) return frequency / scaling.factor;
  const double smooth = (waves - scaling.low_factor) / (scaling.high_factor - scaling.low_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

template <typename T>
void rope_table(size_t length, size_t head_width, double theta, const RopeScaling& scaling, T* cosines, T* sines) {
  const size_t half = head_width / 2;
  const double log_theta = portable_log(theta);
  for (size_t i = 0; i < half; ++i) {
    const double frequency =
        stretched(portable_exp(-2.0 * static_cast<double>(i) / static_cast<double>(head_width) * log_theta), scaling);
    for (size_t t = 0; t < length; ++t) {
      const SineCosine turned = portable_sincos(static_cast<double>(t) * frequency);
      cosines[t * half + i] = static_cast<T>(turned.cosine);
      sines[t * half + i] = static_cast<T>(turned.sine);
    }
  }
}

template <typename T>
void run(WorkerPool& workers, const Rope<T>& op) {
  const Inner<T>& in = inner<T>();
  const size_t half = op.head_width / 2;
  workers.run(op.sequences * 4, [&](size_t part, unsigned) {
    const size_t s = part / 4, quarter = part % 4;
    for (size_t t = quarter * op.length / 4; t < (quarter + 1) * op.length / 4; ++t) {
      T* row = op.x + (s * op.length + t) * op.row_stride;
      for (size_t head = 0; head < op.heads; ++head, row += op.head_width) {
        in.rotate(half, row, row + half, op.cosines + t * half, op.sines + t * half, op.inverse ? T{-1} : T{1});
      }
    }
  });
}

template void rope_table(size_t, size_t, double, const RopeScaling&, float*, float*);
template void rope_table(size_t, size_t, double, const RopeScaling&, double*, double*);
template void run(WorkerPool&, const Rope<float>&);
template void run(WorkerPool&, const Rope<double>&);

}  // namespace pitcrew::trainer
