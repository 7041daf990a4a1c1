#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "trainer/device/device.hpp"
#include "trainer/parallel/gradient_reducer.hpp"
#include "trainer/parallel/shard_layout.hpp"

namespace pitcrew::trainer {

// How a sharded rank's sums become those of all replicas while the backward pass still runs: unit by unit, in the order
// in which they are complete, which is the same on all replicas. Elements are added in the tree over lanes, so units by
// themselves give the bits of the slice as a whole.
//
// Owned by the engine. A thread of its own uses the reducer, which outlives this; its communicator is nobody else's
// between give() and drain(). An error stays: nothing is reduced after it, and drain() says why. Ends with its
// destructor, which aborts what is under way.
class ReplicaSums {
 public:
  // `sums`: the slices of this rank's subtrees, from left to right; `result`: the slice that their sum comes to lie in,
  // the first of them where there is one. On `device`, whose `stream` is this one's while something is reduced.
  ReplicaSums(const ShardLayout& layout, std::vector<float*> sums, float* result, GradientReducer& reducer,
              Device& device, Stream& stream);
  ~ReplicaSums();
  ReplicaSums(const ReplicaSums&) = delete;
  ReplicaSums& operator=(const ReplicaSums&) = delete;

  // The unit's piece of the sums is complete, and the result's may be written once `after` has come (null: now). From
  // any thread.
  void give(uint32_t unit, std::shared_ptr<const Event> after = nullptr);
  // Waits until all that was given is reduced.
  Status drain();

 private:
  struct Job {
    uint32_t unit = 0;
    std::shared_ptr<const Event> after;
  };
  void reduce_all(std::stop_token stop);
  Status reduce(const Job& job);

  const ShardLayout layout_;
  const std::vector<float*> sums_;
  float* const result_;
  GradientReducer& reducer_;
  Device& device_;
  Stream& stream_;
  std::vector<Buffer> host_sums_;  // of one unit, where the reducer can't take the device's memory

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Job> jobs_;
  bool busy_ = false;
  std::optional<Error> failure_;
  std::jthread thread_;
};

}  // namespace pitcrew::trainer
