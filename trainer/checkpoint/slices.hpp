#pragma once

#include <vector>

#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// Digests are kept of pieces of this size, counted from the first byte that a rank holds of each tensor.
inline constexpr uint64_t kChunkBytes = uint64_t{1} << 20;

// A run of one tensor's elements.
struct StateSlice {
  size_t tensor = 0;   // index in the list of state tensors
  uint64_t first = 0;  // element
  uint64_t count = 0;
  bool operator==(const StateSlice&) const = default;
};

// Deals the held part of the state out among `parts`: contiguous runs of whole chunks, as even in bytes as chunks
// allow, each tensor at most once in each part. What is held of a tensor is cut at chunk boundaries only, counted from
// its first byte, so digests don't depend on how many parts there are.
std::vector<std::vector<StateSlice>> deal_slices(const std::vector<StateTensor>& tensors, uint32_t parts);

// The ranks that hold the same elements, and which of them this one is: replicas.
struct Holders {
  uint32_t index = 0;
  uint32_t count = 1;
};

constexpr uint64_t chunks_of(uint64_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

}  // namespace pitcrew::trainer
