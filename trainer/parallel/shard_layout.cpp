#include "trainer/parallel/shard_layout.hpp"

#include <algorithm>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

ShardLayout::ShardLayout(std::vector<uint64_t> bounds, uint32_t shards) : bounds_(std::move(bounds)), shards_(shards) {
  for (size_t unit = 0; unit + 1 < bounds_.size(); ++unit) {
    PITCREW_INVARIANT(bounds_[unit] % kAlign == 0 && bounds_[unit + 1] % kAlign == 0, "units are padded");
    const uint64_t groups = (bounds_[unit + 1] - bounds_[unit]) / kAlign;
    pieces_.push_back((groups + shards - 1) / shards * kAlign);
    offsets_.push_back(offsets_.back() + pieces_.back());
  }
}

ShardLayout::Run ShardLayout::own(uint32_t unit, uint32_t shard) const {
  const uint64_t end = bounds_[unit + 1];
  const uint64_t first = std::min(end, bounds_[unit] + shard * pieces_[unit]);
  return {first, std::min(end, first + pieces_[unit]) - first};
}

}  // namespace pitcrew::trainer
