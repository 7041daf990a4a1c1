#include <string>

#include "lib/base/result.hpp"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

void Workspace::check(size_t wanted) const {
  PITCREW_INVARIANT(wanted <= bytes, "an operation needs " + std::to_string(wanted) + " bytes of a workspace of " +
                                         std::to_string(bytes) + "; kernel_workspace_bytes() must count it");
}

}  // namespace pitcrew::trainer::cuda
