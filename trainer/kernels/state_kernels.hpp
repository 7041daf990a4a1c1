#pragma once

#include <functional>

#include "trainer/device/device.hpp"
#include "trainer/kernels/cast.hpp"

namespace pitcrew::trainer {

// The operations that a snapshot needs on a stream of its own, beside the computation: they use no workspace. All are
// set, or none.
struct StateKernels {
  std::function<void(Stream&, const DigestList&)> digest;
  std::function<void(Stream&, const SplitMasters&)> split;
  std::function<void(Stream&, const JoinMasters&)> join;
};

}  // namespace pitcrew::trainer
