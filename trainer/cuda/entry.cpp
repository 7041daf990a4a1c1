#include "trainer/cuda/cuda_kernels.hpp"
#include "trainer/cuda/library.hpp"

namespace pitcrew::trainer::cuda {

namespace {

Result<Compute> open_here(const Settings& settings) {
  PITCREW_ASSIGN(auto device, CudaDevice::create(settings.ordinal));
  Compute compute;
  compute.name = device->name();
  compute.identity = device->identity();
  compute.free_bytes = device->memory().free;
  compute.total_bytes = device->memory().total;
  PITCREW_ASSIGN(auto kernels, CudaKernels::create(*device, settings.workspace_bytes));
  compute.plans = &kernels->plans();
  compute.attention = &kernels->attention();
  compute.device = std::move(device);
  compute.kernels = std::move(kernels);
  return compute;
}

}  // namespace

}  // namespace pitcrew::trainer::cuda

extern "C" __attribute__((visibility("default"))) void pitcrew_cuda_open(
    const char* interface, const pitcrew::trainer::cuda::Settings* settings,
    std::optional<pitcrew::Result<pitcrew::trainer::cuda::Compute>>* opened) {
  using namespace pitcrew;
  // Nothing but the name is looked at before it is known to be ours.
  if (interface != trainer::cuda::interface_name()) {
    opened->emplace(Error(Code::kUnsupported, "libpitcrew_cuda.so is of build " + trainer::cuda::interface_name() +
                                                  ", pitcrew-train of build " + interface + "; install both together"));
    return;
  }
  opened->emplace(trainer::cuda::open_here(*settings));
}
