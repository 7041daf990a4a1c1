#include "trainer/cuda/emulation/emulated_kernels.hpp"
#include "trainer/cuda/twin_backend.hpp"
#include "trainer/device/cpu_device.hpp"

namespace pitcrew::trainer {

TwinBackend& twin_backend() {
  static TwinBackend backend = [] {
    TwinBackend made;
    made.device = std::make_unique<CpuDevice>(CpuDeviceOptions{.threads = 1});
    made.kernels = create_emulated_kernels(*made.device, size_t{4} << 20);
    made.slow = true;
    return made;
  }();
  return backend;
}

}  // namespace pitcrew::trainer
