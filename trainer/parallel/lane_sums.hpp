#pragma once

#include <vector>

#include "trainer/parallel/lanes.hpp"

namespace pitcrew::trainer {

// How a replica adds up its lanes when each of its micro-steps brings one lane of every shard: in the fixed tree, left
// to right. What is left after a micro-step lies in as few slots as go; lanes that come in one micro-step are added
// where they arrived. The same for every unit and every shard. Immutable.
class LaneSums {
 public:
  // Values below slots() are slots; slots() + i is what shard i brought in this micro-step.
  struct Step {
    bool add = true;  // else: `from` is moved to `into`, a slot
    uint32_t into = 0;
    uint32_t from = 0;
  };

  LaneSums() = default;
  // Of the lanes of `range`; micro-step m brings lanes range.first + m × shards and up, one of each shard.
  LaneSums(LaneRange range, uint32_t lanes, uint32_t shards);

  uint32_t micro_steps() const { return static_cast<uint32_t>(steps_.size()); }
  // How many of the shards, from the first on, have a lane in micro-step `m`.
  uint32_t brought(uint32_t m) const { return brought_[m]; }
  const std::vector<Step>& steps(uint32_t m) const { return steps_[m]; }
  uint32_t slots() const { return slots_; }
  // The slots that hold the sums of the range's subtrees in the end, from left to right.
  const std::vector<uint32_t>& left() const { return left_; }

 private:
  std::vector<std::vector<Step>> steps_;
  std::vector<uint32_t> brought_;
  std::vector<uint32_t> left_;
  uint32_t slots_ = 1;
};

}  // namespace pitcrew::trainer
