#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/parallel/tensor_group.hpp"

namespace pitcrew::trainer {

// A tensor group over a communicator. One that moves the device's memory in a stream's order is given its work at once.
// Else bytes are moved on the stream's thread, where the device's memory isn't the host's through page-locked memory of
// the host; it grows to what the largest call needs. The communicator outlives this; so does the device.
std::unique_ptr<TensorGroup> create_tensor_group(Comm& comm, Device& device);

}  // namespace pitcrew::trainer
