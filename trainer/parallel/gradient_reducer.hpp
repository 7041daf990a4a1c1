#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/parallel/lanes.hpp"
#include "trainer/parallel/piece_memory.hpp"

namespace pitcrew::trainer {

// Adds the gradients of all lanes over all ranks in the fixed tree, so that the sum has the same bits for every number
// of ranks. Each rank brings the sums of its subtrees; of every stretch of elements each rank is given one piece of all
// subtrees (exchange), adds them in the tree's order, and hands the sum to all others (exchange). Works in the memory
// that the communicator moves: the host's, or the device's. At most `piece` elements per subtree are in flight. The
// ranks of `comm` are the plan's replicas; where these are sharded, each shard's slices are reduced by themselves.
//
// Owned and used by a rank's training thread. The communicator outlives it.
class GradientReducer {
 public:
  // `memory`: where the pieces lie, and what is given to reduce(); null: the host's.
  GradientReducer(Comm& comm, const LanePlan& plan, size_t piece = size_t{1} << 20,
                  std::unique_ptr<PieceMemory> memory = nullptr);

  // Whether what is given to reduce() lies in the device's memory.
  bool device_memory() const { return comm_.device_memory(); }
  // From now on `add_all` adds one sum of each rank up, in place, in an order of its own: other ranks, other bits.
  void let_add(std::function<Status(std::span<float>)> add_all) { add_all_ = std::move(add_all); }

  // Ends a reduce() that is under way, from any thread.
  void abort() { comm_.abort(); }

  // `mine`: the sums of subtrees(plan.range(rank), lanes), in their order, each of out.size() elements; `out` may be
  // the first of them, which are otherwise left alone. Collective. Errors as Comm::exchange.
  Status reduce(std::span<const float* const> mine, std::span<float> out);

 private:
  struct Piece {
    size_t first = 0;
    size_t count = 0;
  };
  Piece piece_of(uint32_t rank, size_t first, size_t count) const;
  Status reduce_by_others(std::span<const float* const> mine, std::span<float> out);
  Status scatter(std::span<const float* const> mine, size_t first, size_t count);
  void fold(Piece own);
  Status gather(std::span<float> out, size_t first, size_t count);

  Comm& comm_;
  const uint32_t lanes_;
  const size_t piece_;
  std::vector<std::vector<TreeNode>> nodes_;   // by replica
  size_t subtrees_ = 0;                        // of all ranks
  const std::unique_ptr<PieceMemory> memory_;  // the own piece of every subtree, in the order of lanes
  std::function<Status(std::span<float>)> add_all_;
};

}  // namespace pitcrew::trainer
