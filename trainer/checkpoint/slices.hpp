#pragma once

#include <vector>

#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// Digests are kept of pieces of this size, counted from the first byte of each tensor.
inline constexpr uint64_t kChunkBytes = uint64_t{1} << 20;

// A run of one tensor's elements.
struct StateSlice {
  size_t tensor = 0;   // index in the list of state tensors
  uint64_t first = 0;  // element
  uint64_t count = 0;
  bool operator==(const StateSlice&) const = default;
};

// Deals the state out among `parts`: contiguous runs of whole chunks, as even in bytes as chunks allow, each tensor at
// most once in each part. A tensor is cut at chunk boundaries only, so its digests don't depend on how many parts there
// are.
std::vector<std::vector<StateSlice>> deal_slices(const std::vector<StateTensor>& tensors, uint32_t parts);

constexpr uint64_t chunks_of(uint64_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

}  // namespace pitcrew::trainer
