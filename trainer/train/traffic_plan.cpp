#include "trainer/train/traffic_plan.hpp"

#include <algorithm>

#include "trainer/kernels/cross_entropy.hpp"
#include "trainer/model/activations.hpp"
#include "trainer/model/tensor_part.hpp"
#include "trainer/model/units.hpp"
#include "trainer/parallel/unit_order.hpp"

namespace pitcrew::trainer {
namespace {

// Of a backward pass' products there are two for each one of the forward pass.
constexpr double kBackward = 2.0 / 3;

void plan_shards(const PlanRequest& request, const ShardLayout& layout, const LanePlan& lanes, const Machines& machines,
                 TrafficPlan& plan) {
  const double weight = request.numbers == Numbers::kMixed ? sizeof(BF16) : sizeof(float);
  const double others = request.grid.shards - 1, micro_steps = lanes.micro_steps();
  double largest = 0;
  for (const uint32_t unit : gathered_units(layout.units(), request.model.tie_embeddings, lanes.micro_steps())) {
    const auto piece = static_cast<double>(layout.piece(unit));
    plan.gathered += others * piece * weight;
    largest = std::max(largest, piece);
  }
  plan.dealt = micro_steps * others * static_cast<double>(layout.slice_elements()) * sizeof(float);
  plan.shard_seconds = (plan.gathered + plan.dealt) / machines.node_bytes_per_second;
  // The first unit of a step and the last gradient have nothing to hide behind.
  const double ends = others * largest * (weight + sizeof(float)) / machines.node_bytes_per_second;
  plan.exposed_seconds = std::min(plan.shard_seconds, ends + std::max(0.0, plan.shard_seconds - plan.compute_seconds));
}

void plan_replicas(const Grid& grid, const ShardLayout& layout, const LanePlan& lanes, const Machines& machines,
                   TrafficPlan& plan) {
  const double part = static_cast<double>(grid.replicas - 1) / grid.replicas;
  uint64_t subtrees_of_rank = 0;
  for (uint32_t replica = 0; replica < grid.replicas; ++replica)
    subtrees_of_rank = std::max<uint64_t>(subtrees_of_rank, subtrees(lanes.range(replica), lanes.lanes()).size());
  const double times = part * static_cast<double>(subtrees_of_rank + 1) * sizeof(float);
  plan.replicated = times * static_cast<double>(layout.slice_elements());
  plan.replica_seconds = plan.exposed_replica_seconds = plan.replicated / machines.network_bytes_per_second;
  if (grid.shards == 1) return;
  // All units but the last, the embedding, have the rest of the last backward pass to hide behind.
  const double last = times * static_cast<double>(layout.piece(0)) / machines.network_bytes_per_second;
  const double backward = kBackward * plan.compute_seconds / std::max(1u, lanes.micro_steps());
  plan.exposed_replica_seconds = last + std::max(0.0, plan.replica_seconds - last - backward);
}

// As the decoder exchanges: own rows around each product, three numbers of each prediction, and small gradients.
void plan_tensor(const PlanRequest& request, const LanePlan& lanes, const Machines& machines, TrafficPlan& plan) {
  const double others = request.grid.tensor - 1, rows = static_cast<double>(request.micro) * request.tokens;
  const double own = rows / request.grid.tensor * request.model.width *
                     (request.numbers == Numbers::kMixed ? sizeof(BF16) : sizeof(float));
  // The embedding and the head, forward and backward; of a block four products forward, six exchanges backward.
  const double times = 4 + request.model.layers * (10 + (request.recompute.block ? 3.0 : 0.0));
  const double lane = times * own + rows * sizeof(SoftmaxPart<float>) +
                      static_cast<double>(small_elements(request.model)) * sizeof(float);
  plan.exchanged = static_cast<double>(lanes.micro_steps()) * request.passes * others * lane;
  plan.tensor_seconds = plan.exchanged / machines.node_bytes_per_second;
}

}  // namespace

Result<TrafficPlan> traffic_plan(const PlanRequest& request, const Machines& machines) {
  const Grid& grid = request.grid;
  PITCREW_TRY(tensor_part(request.model, grid.tensor));
  PITCREW_ASSIGN(const LanePlan lanes,
                 LanePlan::make(request.sequences, request.micro, grid.data_ranks(), grid.shards, request.passes));
  const ShardLayout layout(unit_bounds<BF16>(request.model, {0, grid.tensor}), grid.shards);

  TrafficPlan plan;
  const double lane_flops =
      request.model.flops_per_token(request.tokens) * lanes.lane_sequences() * request.tokens / grid.tensor;
  plan.compute_seconds = lanes.micro_steps() * lane_flops / machines.flops_per_second;
  if (grid.shards > 1) plan_shards(request, layout, lanes, machines, plan);
  if (grid.replicas > 1) plan_replicas(grid, layout, lanes, machines, plan);
  if (grid.tensor > 1) plan_tensor(request, lanes, machines, plan);
  return plan;
}

}  // namespace pitcrew::trainer
