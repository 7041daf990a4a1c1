#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace pitcrew::trainer {

// Which ranks of a tensor group: this one's place, and how many there are.
struct TensorPlace {
  uint32_t rank = 0;
  uint32_t size = 1;
  bool operator==(const TensorPlace&) const = default;
};

// How tensor ranks share a tensor. Along `axis`, each of `groups` (extents that add up to the axis') is dealt to
// `count` ranks, ceil(extent / count) indices each, the last ranks less. Rank `index` holds its share of every group,
// one behind the other, as a row-major tensor of its own: what a checkpoint stores. count 1: the whole tensor.
struct TensorCut {
  uint32_t axis = 0;
  std::vector<uint64_t> groups;
  uint32_t count = 1;
  uint32_t index = 0;

  bool whole() const { return count == 1; }
  bool operator==(const TensorCut&) const = default;
};

// The shape of what the cut's rank holds.
std::vector<uint64_t> held_shape(const std::vector<uint64_t>& shape, const TensorCut& cut);
uint64_t held_elements(const std::vector<uint64_t>& shape, const TensorCut& cut);

// A run of elements that lie one behind the other both in the whole tensor and in what a rank holds of it.
struct CutRun {
  uint64_t held = 0;   // first element, counted in what the rank holds
  uint64_t whole = 0;  // and in the whole tensor
  uint64_t count = 0;
};
// The runs of held elements [first, first + count), in their order.
void for_each_run(const std::vector<uint64_t>& shape, const TensorCut& cut, uint64_t first, uint64_t count,
                  const std::function<void(const CutRun&)>& visit);

// Held elements [first, first + count) of `from` that `to` holds as well: visit(held by from, held by to, count).
void for_each_common_run(const std::vector<uint64_t>& shape, const TensorCut& from, uint64_t first, uint64_t count,
                         const TensorCut& to,
                         const std::function<void(uint64_t from, uint64_t to, uint64_t count)>& visit);

}  // namespace pitcrew::trainer
