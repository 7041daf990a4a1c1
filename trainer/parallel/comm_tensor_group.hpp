#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/parallel/tensor_group.hpp"

namespace pitcrew::trainer {

// A tensor group over a communicator. Where the device's memory isn't the host's, bytes go through page-locked memory
// of the host; it grows to what the largest call needs. The communicator is used on the stream's thread alone, and
// outlives this; so does the device.
std::unique_ptr<TensorGroup> create_tensor_group(Comm& comm, Device& device);

}  // namespace pitcrew::trainer
