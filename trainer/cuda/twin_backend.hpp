#pragma once

#include <memory>
#include <string>

#include "trainer/device/device.hpp"
#include "trainer/kernels/attention_engine.hpp"
#include "trainer/kernels/kernels.hpp"

namespace pitcrew::trainer {

// What the twins' tests compare with the CPU: a GPU, or its kernels emulated. The test is linked with one of the two.
struct TwinBackend {
  std::unique_ptr<Device> device;
  std::unique_ptr<Kernels<BF16>> kernels;
  AttentionEngines* attention = nullptr;  // the kernels'; null: they have their own only
  bool slow = false;                      // emulated: shapes must be small
  std::string why_not;                    // where there is none: the tests are skipped, and say this
};
TwinBackend& twin_backend();

}  // namespace pitcrew::trainer
