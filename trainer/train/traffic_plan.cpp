#include "trainer/train/traffic_plan.hpp"

#include <algorithm>

#include "trainer/model/units.hpp"
#include "trainer/parallel/unit_order.hpp"

namespace pitcrew::trainer {

Result<TrafficPlan> traffic_plan(const PlanRequest& request, const Machines& machines) {
  const Grid& grid = request.grid;
  if (grid.tensor > 1) return Error(Code::kInvalidArgument, "plan: tensor ranks' traffic is not modelled");
  PITCREW_ASSIGN(const LanePlan lanes,
                 LanePlan::make(request.sequences, request.micro, grid.data_ranks(), grid.shards, request.passes));
  const ShardLayout layout(unit_bounds<BF16>(request.model), grid.shards);
  const bool tied = request.model.tie_embeddings;
  const double weight = request.numbers == Numbers::kMixed ? sizeof(BF16) : sizeof(float);
  const double others = grid.shards - 1, micro_steps = lanes.micro_steps();

  TrafficPlan plan;
  const double lane_flops = request.model.flops_per_token(request.tokens) * lanes.lane_sequences() * request.tokens;
  plan.compute_seconds = micro_steps * lane_flops / machines.flops_per_second;
  if (grid.shards > 1) {
    double largest = 0;
    for (const uint32_t unit : gathered_units(layout.units(), tied, lanes.micro_steps())) {
      const auto piece = static_cast<double>(layout.piece(unit));
      plan.gathered += others * piece * weight;
      largest = std::max(largest, piece);
    }
    plan.dealt = micro_steps * others * static_cast<double>(layout.slice_elements()) * sizeof(float);
    plan.shard_seconds = (plan.gathered + plan.dealt) / machines.node_bytes_per_second;
    // The first unit of a step and the last gradient have nothing to hide behind.
    const double ends = others * largest * (weight + sizeof(float)) / machines.node_bytes_per_second;
    plan.exposed_seconds =
        std::min(plan.shard_seconds, ends + std::max(0.0, plan.shard_seconds - plan.compute_seconds));
  }
  if (grid.replicas > 1) {
    const double part = static_cast<double>(grid.replicas - 1) / grid.replicas;
    uint64_t subtrees_of_rank = 0;
    for (uint32_t replica = 0; replica < grid.replicas; ++replica)
      subtrees_of_rank = std::max<uint64_t>(subtrees_of_rank, subtrees(lanes.range(replica), lanes.lanes()).size());
    const auto slice = static_cast<double>(layout.slice_elements()) * sizeof(float);
    plan.replicated = part * slice * static_cast<double>(subtrees_of_rank + 1);
    plan.replica_seconds = plan.replicated / machines.network_bytes_per_second;
  }
  return plan;
}

}  // namespace pitcrew::trainer
