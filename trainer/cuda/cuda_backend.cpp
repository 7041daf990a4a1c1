#include "trainer/cuda/cuda_kernels.hpp"
#include "trainer/cuda/twin_backend.hpp"

namespace pitcrew::trainer {

TwinBackend& twin_backend() {
  static TwinBackend backend = [] {
    TwinBackend made;
    auto device = cuda::CudaDevice::create(0);
    if (!device) {
      made.why_not = device.error().message;
      return made;
    }
    auto kernels = cuda::CudaKernels::create(**device, size_t{256} << 20);
    if (!kernels) {
      made.why_not = kernels.error().message;
      return made;
    }
    made.attention = &(*kernels)->attention();
    made.device = std::move(*device);
    made.kernels = std::move(*kernels);
    return made;
  }();
  return backend;
}

}  // namespace pitcrew::trainer
