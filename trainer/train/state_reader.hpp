#pragma once

#include <memory>
#include <vector>

#include "trainer/kernels/kernels.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// What replicas compare of their state: digests and square sums of tensors on the device. Waits for the stream. Owned
// by an engine; its device, kernels and stream outlive it.
template <typename T>
class StateReader {
 public:
  // For tensors as large as these.
  static Result<std::unique_ptr<StateReader>> create(const std::vector<StateTensor>& tensors, Device& device,
                                                     Kernels<T>& kernels, Stream& stream);
  // Bytes on the device.
  static uint64_t bytes(const std::vector<StateTensor>& tensors);

  // XXH3 of each tensor's held bytes.
  std::vector<uint64_t> digests(const std::vector<StateTensor>& tensors);
  double square_sum(const StateTensor& tensor);

 private:
  double joined_square_sum(const StateTensor& tensor);

  StateReader(Kernels<T>& kernels, Stream& stream) : kernels_(kernels), stream_(stream) {}

  Kernels<T>& kernels_;
  Stream& stream_;
  Buffer digests_, host_digests_, sum_, host_sum_;
};

}  // namespace pitcrew::trainer
