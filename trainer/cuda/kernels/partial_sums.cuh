#pragma once

#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

// to[i] (+)= partial[0][i] + partial[1][i] + … in this order, for i below `width`; rows of `partial` are `stride`
// apart.
void add_partials(Queue queue, const float* partial, size_t count, size_t stride, size_t width, float* to,
                  bool accumulate);

}  // namespace pitcrew::trainer::cuda
