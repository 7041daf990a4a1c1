#include "trainer/cuda/cuda_kernels.hpp"

namespace pitcrew::trainer::cuda {

namespace {

// kernel_workspace_bytes() counts it.
constexpr size_t kProductBytes = size_t{32} << 20;

}  // namespace

Result<std::unique_ptr<CudaKernels>> CudaKernels::create(CudaDevice& device, size_t workspace_bytes) {
  PITCREW_INVARIANT(workspace_bytes > kProductBytes, "a workspace holds cuBLASLt's and our own");
  PITCREW_ASSIGN(Buffer workspace, device.allocate("the kernels' workspace", workspace_bytes));
  PITCREW_ASSIGN(auto products, Products::create(device.name(), workspace.data(), kProductBytes));
  return std::unique_ptr<CudaKernels>(new CudaKernels(device, std::move(workspace), std::move(products)));
}

CudaKernels::CudaKernels(CudaDevice& device, Buffer workspace, std::unique_ptr<Products> products)
    : workspace_(std::move(workspace)),
      own_{workspace_.data() + kProductBytes, workspace_.bytes() - kProductBytes},
      products_(std::move(products)),
      attention_(device) {}

}  // namespace pitcrew::trainer::cuda
