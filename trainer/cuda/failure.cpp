#include "trainer/cuda/failure.hpp"

#include <cstdio>

#include <unistd.h>

#include "lib/base/environment.hpp"

namespace pitcrew::trainer::cuda {

namespace {

bool speaks_of_hardware(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorContained:
      return true;
    default:
      return false;
  }
}

}  // namespace

Error cuda_error(const std::string& attempted, cudaError_t error) {
  const std::string message = attempted + ": " + cudaGetErrorString(error);
  switch (error) {
    case cudaErrorMemoryAllocation:
      return {Code::kResourceExhausted, message};
    case cudaErrorNoDevice:
      return {Code::kNotFound, message + "; is a GPU given to this container?"};
    case cudaErrorInsufficientDriver:
      return {Code::kUnsupported, message + "; CUDA 13 needs driver 580 or newer"};
    default:
      return {Code::kUnavailable, message};
  }
}

void end_process(const char* attempted, cudaError_t error) {
  std::fprintf(stderr, "pitcrew-train: the GPU could not %s: %s (%s)\n", attempted, cudaGetErrorString(error),
               cudaGetErrorName(error));
  std::fflush(nullptr);
  // No destructor may wait for the device any more.
  _exit(speaks_of_hardware(error) ? exit_code::kReplaceNode : exit_code::kTryAgain);
}

}  // namespace pitcrew::trainer::cuda
