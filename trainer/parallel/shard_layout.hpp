#pragma once

#include <cstdint>
#include <vector>

namespace pitcrew::trainer {

// How a flat arena of parameters is cut into units (the embedding, each block, the head: what is gathered and released
// as one) and each unit into equal pieces, one for each shard. A shard's slice is its pieces one after another; a piece
// is padded to the largest of its unit, so that pieces are of one size on the wire. Immutable.
class ShardLayout {
 public:
  // A run of the flat arena's elements.
  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
    uint64_t end() const { return first + count; }
  };
  static constexpr uint64_t kAlign = 16;  // elements: every piece begins at 64 bytes

  ShardLayout() = default;
  // `bounds`: where each unit begins, and where the last ends; multiples of kAlign.
  ShardLayout(std::vector<uint64_t> bounds, uint32_t shards);

  uint32_t shards() const { return shards_; }
  uint32_t units() const { return static_cast<uint32_t>(pieces_.size()); }
  uint64_t flat_elements() const { return bounds_.back(); }
  Run unit(uint32_t unit) const { return {bounds_[unit], bounds_[unit + 1] - bounds_[unit]}; }
  // Elements of a piece, padding included.
  uint64_t piece(uint32_t unit) const { return pieces_[unit]; }
  // Elements of all pieces of a unit: what it takes to gather it.
  uint64_t gathered(uint32_t unit) const { return pieces_[unit] * shards_; }
  // Where the unit's piece begins in a shard's slice.
  uint64_t offset(uint32_t unit) const { return offsets_[unit]; }
  // Of a slice.
  uint64_t slice_elements() const { return offsets_.back(); }
  // What of the flat arena is a shard's piece of the unit; may be empty.
  Run own(uint32_t unit, uint32_t shard) const;

 private:
  std::vector<uint64_t> bounds_{0};
  std::vector<uint64_t> pieces_;
  std::vector<uint64_t> offsets_{0};
  uint32_t shards_ = 1;
};

}  // namespace pitcrew::trainer
