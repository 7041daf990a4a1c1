#pragma once

#include <memory>

#include "trainer/device/device.hpp"
#include "trainer/kernels/kernels.hpp"

namespace pitcrew::trainer {

// The GPU's kernels with fibers for threads, on any stream of a CPU device. For tests.
std::unique_ptr<Kernels<BF16>> create_emulated_kernels(Device& device, size_t workspace_bytes);

}  // namespace pitcrew::trainer
