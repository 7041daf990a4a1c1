#include "trainer/parallel/square_sum_plan.hpp"

#include <algorithm>

namespace pitcrew::trainer {
namespace {

// A piece that isn't empty.
struct Held {
  ShardLayout::Run run;
  uint32_t shard;
  uint64_t offset;  // in the shard's slice
};

std::vector<Held> pieces_of(const ShardLayout& layout) {
  std::vector<Held> pieces;
  for (uint32_t unit = 0; unit < layout.units(); ++unit) {
    for (uint32_t shard = 0; shard < layout.shards(); ++shard) {
      const ShardLayout::Run run = layout.own(unit, shard);
      if (run.count > 0) pieces.push_back({run, shard, layout.offset(unit)});
    }
  }
  return pieces;
}

}  // namespace

SquareSumPlan::SquareSumPlan(const ShardLayout& layout, uint64_t block)
    : shared_(layout.shards()), blocks_(static_cast<uint32_t>((layout.flat_elements() + block - 1) / block)) {
  const std::vector<Held> pieces = pieces_of(layout);
  const uint64_t end = layout.flat_elements();
  size_t piece = 0;
  for (uint64_t at = 0; at < end;) {
    while (pieces[piece].run.end() <= at) ++piece;
    const Held& held = pieces[piece];
    const auto index = static_cast<uint32_t>(at / block);
    // As large a node as begins here and lies within the piece.
    uint32_t level = 0;
    uint64_t stop = std::min(end, at + block);
    if (held.run.end() >= stop) {
      for (; index % (2u << level) == 0; ++level) {
        const uint64_t wider = at + (block << (level + 1));
        if (wider > held.run.end() || stop == end) break;
        stop = wider;
      }
      nodes_.push_back({{level, index >> level}, held.shard, held.offset + at - held.run.first, stop - at});
      at = stop;
      continue;
    }
    const uint64_t target = shared_[held.shard];
    nodes_.push_back({{0, index}, held.shard, target, stop - at, true});
    shared_[held.shard] += block;
    for (uint64_t first = at; first < stop;) {
      while (pieces[piece].run.end() <= first) ++piece;
      const Held& part = pieces[piece];
      const uint64_t last = std::min(stop, part.run.end());
      fragments_.push_back(
          {part.shard, held.shard, part.offset + first - part.run.first, target + first - at, last - first});
      first = last;
    }
    at = stop;
  }
}

uint32_t SquareSumPlan::count(uint32_t shard) const {
  return static_cast<uint32_t>(
      std::count_if(nodes_.begin(), nodes_.end(), [&](const Node& node) { return node.shard == shard; }));
}

double SquareSumPlan::total(std::vector<double> sums) const {
  TreeFold tree(blocks_);
  for (uint32_t i = 0; i < nodes_.size(); ++i)
    tree.push(nodes_[i].node, i, [&](uint32_t into, uint32_t from) { sums[into] += sums[from]; });
  return tree.parts().empty() ? 0 : sums[tree.parts().front().value];
}

}  // namespace pitcrew::trainer
