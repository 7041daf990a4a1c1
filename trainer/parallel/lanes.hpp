#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// Lanes [first, end).
struct LaneRange {
  uint32_t first = 0;
  uint32_t end = 0;
  uint32_t count() const { return end - first; }
  bool operator==(const LaneRange&) const = default;
};

// Every stride-th lane from `first` on, `number` of them: what one rank computes.
struct LaneShare {
  uint32_t first = 0;
  uint32_t number = 0;
  uint32_t stride = 1;
  uint32_t count() const { return number; }
  uint32_t operator[](uint32_t i) const { return first + i * stride; }
  bool operator==(const LaneShare&) const = default;
};

// How a batch of `sequences` is cut into lanes, and which rank computes which. A lane is `passes` times `micro`
// sequences, which are computed one after another and added in that order. Replicas get
// contiguous ranges, as even as they go; within one, lanes are dealt to the shards in turn, so that a micro-step's
// lanes lie side by side in the tree. What a lane contains never depends on the number of ranks. Every rank runs
// micro_steps() micro-steps; where it has fewer lanes, the missing ones weigh zero.
class LanePlan {
 public:
  // `ranks`: those that see different lanes, a multiple of `shards`; rank = replica × shards + shard. kInvalidArgument
  // where lanes do not divide sequences.
  static Result<LanePlan> make(uint32_t sequences, uint32_t micro, uint32_t ranks, uint32_t shards = 1,
                               uint32_t passes = 1);

  uint32_t sequences() const { return lanes_ * lane_sequences(); }
  uint32_t micro() const { return micro_; }  // sequences that are computed at once
  uint32_t passes() const { return passes_; }
  uint32_t lane_sequences() const { return micro_ * passes_; }
  uint32_t lanes() const { return lanes_; }
  uint32_t ranks() const { return ranks_; }
  uint32_t micro_steps() const { return (lanes_ + ranks_ - 1) / ranks_; }
  uint32_t shards() const { return shards_; }
  uint32_t replicas() const { return ranks_ / shards_; }
  // Of all shards of a replica.
  LaneRange range(uint32_t replica) const;
  LaneShare of(uint32_t rank) const;

 private:
  LanePlan(uint32_t lanes, uint32_t micro, uint32_t passes, uint32_t ranks, uint32_t shards)
      : lanes_(lanes), micro_(micro), passes_(passes), ranks_(ranks), shards_(shards) {}

  uint32_t lanes_;
  uint32_t micro_;
  uint32_t passes_;
  uint32_t ranks_;
  uint32_t shards_;
};

// A node of the fixed binary tree over lanes: lanes [index << level, (index + 1) << level), as far as they exist.
struct TreeNode {
  uint32_t level = 0;
  uint32_t index = 0;
  bool operator==(const TreeNode&) const = default;
};

// Adds up values in the one tree that all world sizes share. Nodes are pushed from left to right; two siblings are
// added as soon as both are complete, and a node without a right sibling stands for its parent. What is left is the
// fewest subtrees that cover what was pushed: the root alone, once all lanes were.
//
// A value is known by the caller's number for it (a buffer).
class TreeFold {
 public:
  struct Part {
    TreeNode node;
    uint32_t value = 0;
  };

  explicit TreeFold(uint32_t lanes) : lanes_(lanes) {}

  // add(into, from): the caller adds value `from` to value `into`; `from` is free afterwards.
  template <typename Add>
  void push(TreeNode node, uint32_t value, Add&& add) {
    parts_.push_back({promote(node), value});
    while (parts_.size() > 1 && siblings(parts_[parts_.size() - 2].node, parts_.back().node)) {
      const Part right = parts_.back();
      parts_.pop_back();
      add(parts_.back().value, right.value);
      Part& left = parts_.back();
      left.node = promote({left.node.level + 1, left.node.index / 2});
    }
  }
  const std::vector<Part>& parts() const { return parts_; }
  // The caller has put part number `part` somewhere else.
  void rename(size_t part, uint32_t value) { parts_[part].value = value; }

 private:
  static bool siblings(TreeNode left, TreeNode right) {
    return left.level == right.level && left.index % 2 == 0 && right.index == left.index + 1;
  }
  TreeNode promote(TreeNode node) const;

  uint32_t lanes_;
  std::vector<Part> parts_;
};

// The subtrees that remain when the lanes of `range` are folded, from left to right: at most 2 × log2(lanes).
std::vector<TreeNode> subtrees(LaneRange range, uint32_t lanes);
// How many values are alive at once while the lanes of `range` are folded one by one; 0 for none.
uint32_t peak_values(LaneRange range, uint32_t lanes);

// One number per lane, added in the tree. 0 for none.
double tree_sum(std::span<const double> lanes);

}  // namespace pitcrew::trainer
