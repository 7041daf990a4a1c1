#pragma once

#include <memory>

#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/kernels.hpp"

namespace pitcrew::trainer {

// The operations on the CPU device's threads; the instruction set is the machine's best, found at run time.
// T: float, double, or BF16: that one computes in float and rounds what it writes, slowly; it is what a GPU's kernels
// are compared with.
template <typename T>
std::unique_ptr<Kernels<T>> create_cpu_kernels(CpuDevice& device);

}  // namespace pitcrew::trainer
