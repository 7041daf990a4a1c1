#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/parallel/lanes.hpp"
#include "trainer/parallel/shard_layout.hpp"

namespace pitcrew::trainer {

// How shards add up the squares of a flat arena in the order of the kernels (kSumBlock elements, then a binary tree
// over blocks), so that the sum has the bits that one rank with the whole arena gets. A block that lies within one
// piece is its owner's, and runs of such blocks are nodes of the tree; of a block that several pieces share the owner
// of its first element is given the others' elements. Where only some runs of the arena count, each has blocks and a
// tree of its own, and the runs' sums are added one after another. The same on every shard; pure.
class SquareSumPlan {
 public:
  // A node of the tree over blocks that one shard sums up: `count` elements at `offset` of its slice.
  struct Node {
    TreeNode node;
    uint32_t run = 0;  // of whose tree
    uint32_t shard = 0;
    uint64_t offset = 0;
    uint64_t count = 0;
    bool shared = false;  // then `offset` is where the block is put together, in elements
  };
  // A part of a shared block: from a shard's slice to its place where its owner puts it together.
  struct Fragment {
    uint32_t from = 0;
    uint32_t to = 0;
    uint64_t offset = 0;
    uint64_t target = 0;
    uint64_t count = 0;
  };

  SquareSumPlan() = default;
  // Of the whole arena; or of `runs`, which lie in their order and don't overlap.
  SquareSumPlan(const ShardLayout& layout, uint64_t block);
  SquareSumPlan(const ShardLayout& layout, uint64_t block, const std::vector<ShardLayout::Run>& runs);

  const std::vector<Node>& nodes() const { return nodes_; }  // in the order of blocks
  const std::vector<Fragment>& fragments() const { return fragments_; }
  // Elements that shard needs to put its shared blocks together.
  uint64_t shared_elements(uint32_t shard) const { return shared_[shard]; }
  // Of nodes() those of the shard.
  uint32_t count(uint32_t shard) const;
  // The sum from all nodes' sums, in the order of nodes().
  double total(std::vector<double> sums) const;

 private:
  struct Piece;
  void add_run(const std::vector<Piece>& pieces, ShardLayout::Run run, uint64_t block);
  void share_block(const std::vector<Piece>& pieces, size_t piece, uint64_t at, uint64_t stop, uint32_t index);

  std::vector<Node> nodes_;
  std::vector<Fragment> fragments_;
  std::vector<uint64_t> shared_;
  std::vector<uint32_t> blocks_;  // by run
};

}  // namespace pitcrew::trainer
