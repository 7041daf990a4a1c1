#pragma once

#include "trainer/train/memory_plan.hpp"

namespace pitcrew::trainer {

// What the machines are assumed to do, for the model of a step.
struct Machines {
  // Per GPU within a node: eight H100 over NVLink, all-gather of large messages.
  double node_bytes_per_second = 370e9;
  // Per GPU between nodes: of a 400 Gb/s adapter for each (EFA on p5en).
  double network_bytes_per_second = 35e9;
  // What a GPU makes of the model's own operations: 40 % of an H100's 989.5 dense BF16 TFLOP/s (its data sheet).
  double flops_per_second = 396e12;
};

// What a rank sends in one step, and a model of how long the step takes when bytes move at those rates beside the
// computing: a block's weights while the block before computes, its gradient while the next does, and the replicas'
// sums of it during the last backward pass; without shards replicas add up after all of it. Tensor ranks' activations
// are waited for. Bytes are counted as the trainer moves them; seconds are not measured.
struct TrafficPlan {
  double gathered = 0;    // bytes of weights to the other shards
  double dealt = 0;       // of gradients
  double replicated = 0;  // of sums to the other replicas
  double exchanged = 0;   // of activations and small gradients to the other tensor ranks
  double compute_seconds = 0;
  double shard_seconds = 0;    // weights and gradients, if nothing hid them
  double exposed_seconds = 0;  // of these, what the computing does not hide
  double replica_seconds = 0;
  double exposed_replica_seconds = 0;  // of these, what the computing does not hide
  double tensor_seconds = 0;
  double step_seconds() const { return compute_seconds + exposed_seconds + exposed_replica_seconds + tensor_seconds; }
  double efficiency() const { return compute_seconds / step_seconds(); }
};

// Of the rank with most lanes. kInvalidArgument as memory_plan().
Result<TrafficPlan> traffic_plan(const PlanRequest& request, const Machines& machines = {});

}  // namespace pitcrew::trainer
