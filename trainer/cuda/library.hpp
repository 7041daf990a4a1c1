#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/result.hpp"
#include "trainer/device/device.hpp"
#include "trainer/kernels/attention_engine.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/kernels/product_plans.hpp"
#include "trainer/model/config.hpp"

namespace pitcrew::trainer::cuda {

struct Settings {
  int ordinal = 0;  // of the GPU, as CUDA counts those that are visible
  size_t workspace_bytes = size_t{64} << 20;
};

// One GPU with its kernels. The kernels share a workspace: all that is enqueued goes to one stream. The device outlives
// the rest.
struct Compute {
  std::unique_ptr<Device> device;
  std::unique_ptr<Kernels<BF16>> kernels;
  ProductPlans* plans = nullptr;          // the kernels'
  AttentionEngines* attention = nullptr;  // the kernels'
  std::string name;                       // "NVIDIA H200"
  std::string identity;                   // of this one GPU: its UUID in hexadecimal
  uint64_t total_bytes = 0, free_bytes = 0;
};

// Loads libpitcrew_cuda.so (from beside the program, ../lib, or where the system looks) and opens a GPU. kNotFound: no
// library or no GPU; kUnsupported: a library of another build, or a driver too old; each says what to do.
Result<Compute> open(const Settings& settings);

// What the GPU's kernels can't do, every problem with its remedy; kInvalidArgument.
Status problems(const ModelConfig& model);

// The library's only symbol. The two sides are built together; `interface` says so.
using OpenFunction = void (*)(const char* interface, const Settings* settings, std::optional<Result<Compute>>* opened);
inline constexpr const char* kOpenSymbol = "pitcrew_cuda_open";
// The version, and a number that grows whenever a class that crosses the border changes.
std::string interface_name();

}  // namespace pitcrew::trainer::cuda
