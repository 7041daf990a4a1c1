#pragma once

#include <memory>
#include <string>

#include "agent/check/suite/backend.hpp"

namespace pitcrew::check {

// The node's GPUs, through libpitcrew_check_cuda.so. kNotFound where the library (or the CUDA runtime that it needs) is
// not there, kUnavailable where there is no driver or no GPU.
Result<std::unique_ptr<Backend>> open_gpu_backend(const std::string& library);

}  // namespace pitcrew::check
