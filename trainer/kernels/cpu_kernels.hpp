#pragma once

#include <memory>

#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/kernels.hpp"

namespace pitcrew::trainer {

// The operations on the CPU device's threads; the instruction set is the machine's best, found at run time.
// T: float or double.
template <typename T>
std::unique_ptr<Kernels<T>> create_cpu_kernels(CpuDevice& device);

}  // namespace pitcrew::trainer
