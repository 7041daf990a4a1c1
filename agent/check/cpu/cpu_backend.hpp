#pragma once

#include <functional>
#include <memory>
#include <span>

#include "agent/check/suite/backend.hpp"

namespace pitcrew::check {

// Threads in place of GPUs: the same tests, for real, on the processor and its memory. What runs where there is no GPU,
// in CI above all; it also finds a processor that computes wrong.
struct CpuSettings {
  size_t devices = 2;
  uint64_t memory_bytes = uint64_t{64} << 20;  // of each
  size_t matrix = 192;                         // rows and columns of the product

  // For tests: bends what a device holds after a pattern was written to it, and what a product gave.
  std::function<void(size_t device, std::span<uint64_t> words)> bend_memory;
  std::function<void(size_t device, size_t repetition, std::span<float> product)> bend_product;
};

// `settings` is checked: at least one device, 1 MiB and an 8 by 8 product.
Result<std::unique_ptr<Backend>> make_cpu_backend(CpuSettings settings);

}  // namespace pitcrew::check
