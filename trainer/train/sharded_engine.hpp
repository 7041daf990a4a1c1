#pragma once

#include "trainer/train/lane_engine.hpp"

namespace pitcrew::trainer {

// A LaneEngine whose masters, moments and gradients are one slice of its shard group's: weights of a unit are gathered
// before it is computed and released after, gradients are dealt out as they come (UnitStore). Sums are added in the
// same tree over lanes as without shards, and give the same bits. T: float or BF16. Of tensor ranks each shards its own
// part with those that hold the same.
//
// Beside reduce(), compute(), evaluate(), own_square_sum() and lane_square_sums() are collectives of the shard group,
// and of the tensor group.
template <typename T>
Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings settings, std::shared_ptr<Device> device,
                                                          std::unique_ptr<Kernels<T>> kernels, ProductPlans* plans);

// What a sharded rank allocates, in bytes, before anything is: state and sums by slices, units on their way.
struct ShardedSizes {
  uint64_t slice = 0;  // elements of a slice, padding included
  uint32_t sums = 0;   // slices that lanes are added up in
  uint64_t gathered = 0, computed = 0, received = 0;
  uint64_t norm = 0;     // blocks of the sum of squares that several shards share, and partial sums
  uint64_t digests = 0;  // chunks of what is digested
};
// `rank`: of those that see different lanes.
template <typename T>
ShardedSizes sharded_sizes(const ModelConfig& config, const LanePlan& plan, uint32_t rank, TensorPlace place = {});

}  // namespace pitcrew::trainer
