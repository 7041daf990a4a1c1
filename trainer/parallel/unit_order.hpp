#pragma once

#include <cstdint>
#include <vector>

#include "trainer/parallel/shard_layout.hpp"

namespace pitcrew::trainer {

// In which order a pass of a model uses its units' weights, and which of a few buffers each is gathered into. Unit 0 is
// the embedding, the last one the final norm and, where embeddings are not `tied`, the head. Pure.

inline constexpr uint32_t kUnitSlots = 4;  // the embedding or the head; two of blocks; a tied model's last norm
uint32_t unit_slot(uint32_t unit, uint32_t units, bool tied);
// Elements of each buffer: the largest of its units.
std::vector<uint64_t> unit_slot_elements(const ShardLayout& layout, bool tied);
// Forward, and backward too.
std::vector<uint32_t> unit_order(uint32_t units, bool tied, bool backward);
// What is gathered in `passes` forward and backward passes one after another, from empty buffers: a unit that is still
// in its buffer is not gathered again.
std::vector<uint32_t> gathered_units(uint32_t units, bool tied, uint32_t passes);

}  // namespace pitcrew::trainer
