#include "trainer/parallel/lanes.hpp"

#include <algorithm>

namespace pitcrew::trainer {

Result<LanePlan> LanePlan::make(uint32_t sequences, uint32_t micro, uint32_t ranks, uint32_t shards, uint32_t passes) {
  if (sequences == 0 || micro == 0 || ranks == 0 || passes == 0) {
    return Error(Code::kInvalidArgument,
                 "batch.sequences, batch.micro, batch.passes and the number of ranks must be at least 1");
  }
  if (sequences % micro != 0) {
    return Error(Code::kInvalidArgument, "batch.micro " + std::to_string(micro) + " does not divide batch.sequences " +
                                             std::to_string(sequences) + "; choose a divisor");
  }
  if (sequences / micro % passes != 0) {
    return Error(Code::kInvalidArgument, "batch.passes " + std::to_string(passes) + " times batch.micro " +
                                             std::to_string(micro) + " does not divide batch.sequences " +
                                             std::to_string(sequences) + "; choose divisors");
  }
  PITCREW_INVARIANT(shards > 0 && ranks % shards == 0, "every replica has all shards");
  return LanePlan(sequences / micro / passes, micro, passes, ranks, shards);
}

LaneRange LanePlan::range(uint32_t replica) const {
  const auto bound = [&](uint64_t r) { return static_cast<uint32_t>(uint64_t{lanes_} * r / replicas()); };
  return {bound(replica), bound(uint64_t{replica} + 1)};
}

LaneShare LanePlan::of(uint32_t rank) const {
  const LaneRange all = range(rank / shards_);
  const uint32_t shard = rank % shards_;
  return {all.first + shard, all.count() > shard ? (all.count() - shard - 1) / shards_ + 1 : 0, shards_};
}

TreeNode TreeFold::promote(TreeNode node) const {
  while (node.index > 0 && node.index % 2 == 0 && (uint64_t{node.index} + 1) << node.level >= lanes_) {
    node = {node.level + 1, node.index / 2};
  }
  return node;
}

std::vector<TreeNode> subtrees(LaneRange range, uint32_t lanes) {
  TreeFold fold(lanes);
  for (uint32_t lane = range.first; lane < range.end; ++lane) fold.push({0, lane}, 0, [](uint32_t, uint32_t) {});
  std::vector<TreeNode> nodes;
  for (const TreeFold::Part& part : fold.parts()) nodes.push_back(part.node);
  return nodes;
}

uint32_t peak_values(LaneRange range, uint32_t lanes) {
  TreeFold fold(lanes);
  size_t peak = 0;
  for (uint32_t lane = range.first; lane < range.end; ++lane) {
    peak = std::max(peak, fold.parts().size() + 1);
    fold.push({0, lane}, 0, [](uint32_t, uint32_t) {});
  }
  return static_cast<uint32_t>(peak);
}

double tree_sum(std::span<const double> lanes) {
  if (lanes.empty()) return 0;
  std::vector<double> values(lanes.begin(), lanes.end());
  TreeFold fold(static_cast<uint32_t>(lanes.size()));
  for (uint32_t lane = 0; lane < values.size(); ++lane) {
    fold.push({0, lane}, lane, [&](uint32_t into, uint32_t from) { values[into] += values[from]; });
  }
  return values[fold.parts().front().value];
}

}  // namespace pitcrew::trainer
