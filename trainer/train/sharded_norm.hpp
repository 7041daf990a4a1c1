#pragma once

#include <memory>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/parallel/square_sum_plan.hpp"

namespace pitcrew::trainer {

// The sum of squares of a sharded arena, with the bits that SquareSum gives of the whole, run by run. Owned by an
// engine and called on its thread; what it is made with outlives it.
template <typename T>
class ShardedNorm {
 public:
  static Result<std::unique_ptr<ShardedNorm>> create(SquareSumPlan plan, uint32_t shard, Comm& comm, Device& device,
                                                     Kernels<T>& kernels, Stream& stream);
  // On the device.
  static uint64_t bytes(const SquareSumPlan& plan, uint32_t shard);

  // Of the plan's runs of the arena whose slice on this shard is `slice`. Collective; waits for the stream. Errors as
  // Comm's.
  Result<double> square_sum(const Wide<T>* slice);

 private:
  ShardedNorm(SquareSumPlan plan, uint32_t shard, Comm& comm, Device& device, Kernels<T>& kernels, Stream& stream);
  Status share_blocks(const Wide<T>* slice);
  Result<std::vector<double>> share_sums();
  uint32_t first_of(uint32_t shard) const;

  const SquareSumPlan plan_;
  const uint32_t shard_;
  Comm& comm_;
  Device& device_;
  Kernels<T>& kernels_;
  Stream& stream_;
  Buffer blocks_;          // the shared ones that are summed up here
  Buffer sums_;            // of all nodes, by shard
  Buffer host_sums_;       // the same
  Buffer host_fragments_;  // that go out, then those that come in; where the communicator moves the host's memory
};

}  // namespace pitcrew::trainer
