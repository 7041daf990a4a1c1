#include "trainer/parallel/square_sum_plan.hpp"

#include <algorithm>

namespace pitcrew::trainer {

// A piece that isn't empty.
struct SquareSumPlan::Piece {
  ShardLayout::Run run;
  uint32_t shard;
  uint64_t offset;  // in the shard's slice
};

SquareSumPlan::SquareSumPlan(const ShardLayout& layout, uint64_t block)
    : SquareSumPlan(layout, block, {{0, layout.flat_elements()}}) {}

SquareSumPlan::SquareSumPlan(const ShardLayout& layout, uint64_t block, const std::vector<ShardLayout::Run>& runs)
    : shared_(layout.shards()) {
  std::vector<Piece> pieces;
  for (uint32_t unit = 0; unit < layout.units(); ++unit) {
    for (uint32_t shard = 0; shard < layout.shards(); ++shard) {
      const ShardLayout::Run run = layout.own(unit, shard);
      if (run.count > 0) pieces.push_back({run, shard, layout.offset(unit)});
    }
  }
  for (const ShardLayout::Run& run : runs) add_run(pieces, run, block);
}

void SquareSumPlan::add_run(const std::vector<Piece>& pieces, ShardLayout::Run run, uint64_t block) {
  const auto number = static_cast<uint32_t>(blocks_.size());
  blocks_.push_back(static_cast<uint32_t>((run.count + block - 1) / block));
  const uint64_t end = run.end();
  size_t piece = static_cast<size_t>(
      std::partition_point(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.run.end() <= run.first; }) -
      pieces.begin());
  for (uint64_t at = run.first; at < end;) {
    while (pieces[piece].run.end() <= at) ++piece;
    const Piece& held = pieces[piece];
    const auto index = static_cast<uint32_t>((at - run.first) / block);
    // As large a node as begins here and lies within the piece.
    uint32_t level = 0;
    uint64_t stop = std::min(end, at + block);
    if (held.run.end() < stop) {
      share_block(pieces, piece, at, stop, index);
      at = stop;
      continue;
    }
    for (; index % (2u << level) == 0; ++level) {
      const uint64_t wider = at + (block << (level + 1));
      if (wider > held.run.end() || wider > end || stop == end) break;
      stop = wider;
    }
    nodes_.push_back({{level, index >> level}, number, held.shard, held.offset + at - held.run.first, stop - at});
    at = stop;
  }
}

// A block that lies in several pieces, of which `piece` has its first element.
void SquareSumPlan::share_block(const std::vector<Piece>& pieces, size_t piece, uint64_t at, uint64_t stop,
                                uint32_t index) {
  const uint32_t owner = pieces[piece].shard;
  const uint64_t target = shared_[owner];
  nodes_.push_back({{0, index}, static_cast<uint32_t>(blocks_.size() - 1), owner, target, stop - at, true});
  shared_[owner] += stop - at;
  for (uint64_t first = at; first < stop;) {
    while (pieces[piece].run.end() <= first) ++piece;
    const Piece& part = pieces[piece];
    const uint64_t last = std::min(stop, part.run.end());
    fragments_.push_back({part.shard, owner, part.offset + first - part.run.first, target + first - at, last - first});
    first = last;
  }
}

uint32_t SquareSumPlan::count(uint32_t shard) const {
  return static_cast<uint32_t>(
      std::count_if(nodes_.begin(), nodes_.end(), [&](const Node& node) { return node.shard == shard; }));
}

double SquareSumPlan::total(std::vector<double> sums) const {
  double total = 0;
  uint32_t next = 0;
  for (uint32_t run = 0; run < blocks_.size(); ++run) {
    TreeFold tree(blocks_[run]);
    for (; next < nodes_.size() && nodes_[next].run == run; ++next)
      tree.push(nodes_[next].node, next, [&](uint32_t into, uint32_t from) { sums[into] += sums[from]; });
    if (tree.parts().empty()) continue;
    const double sum = sums[tree.parts().front().value];
    total = run == 0 ? sum : total + sum;
  }
  return total;
}

}  // namespace pitcrew::trainer
