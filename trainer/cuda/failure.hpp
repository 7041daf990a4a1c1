#pragma once

#include <string>

#include <cuda_runtime_api.h>

#include "lib/base/result.hpp"

namespace pitcrew::trainer::cuda {

// The error of a call that can be answered: too little memory, no device, a driver too old.
Error cuda_error(const std::string& attempted, cudaError_t error);

// After an error of a kernel or a copy nothing of this process's context can be trusted or repaired: says what was
// attempted and ends the process, with 76 where the error speaks of the hardware and with 75 otherwise.
[[noreturn]] void end_process(const char* attempted, cudaError_t error);

inline void check(cudaError_t error, const char* attempted) {
  if (error != cudaSuccess) end_process(attempted, error);
}

}  // namespace pitcrew::trainer::cuda
