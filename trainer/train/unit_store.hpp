#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/device/device.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/model/units.hpp"
#include "trainer/parallel/lane_sums.hpp"
#include "trainer/parallel/shard_layout.hpp"
#include "trainer/parallel/unit_order.hpp"

namespace pitcrew::trainer {

// How a sharded rank's weights come and gradients go: a unit's weights are gathered from all shards into one of few
// buffers before it is computed, the next unit's while this one computes, and a unit's gradient is dealt out to its
// shards while the one before computes. Two threads, each with a communicator of its own, move the bytes; no thread
// adds but the one that receives gradients, in the order of lanes. Communicators that move the device's memory are
// given it; for others bytes are staged in the host's.
//
// Owned by the engine; weights() … release_gradients() on the thread that calls the model. An error of a communicator
// stays: once neither thread moves anything, nothing waits any more, what is computed is worthless, and drain() says
// why. Ends with its destructor, before which the communicators must be idle or aborted.
template <typename T>
class UnitStore final : public ModelUnits<T> {
 public:
  struct Settings {
    ShardLayout layout;
    uint32_t shard = 0;
    bool tied = false;  // the head's weights are the embedding's
    LaneSums sums;      // how this replica's lanes are added up
    Comm* gather =
        nullptr;  // of the shard group; each used by one thread at a time, reduce by nobody else until drain()
    Comm* reduce = nullptr;
    std::function<void(bool begins)> waits;  // the model's thread, for the communicators
    // A unit's gradient is complete once the stream has come here: `elements` of it, without padding.
    std::function<void(Stream& stream, uint32_t unit, Wide<T>* gradient, uint64_t elements)> computed;
    // The unit's pieces of the sums are those of all of this replica's lanes. On the thread that adds.
    std::function<void(uint32_t unit)> summed = {};
  };
  // What it will allocate, by kind.
  struct Sizes {
    uint64_t weights = 0;    // bytes of buffers that weights are gathered into
    uint64_t gradients = 0;  // of those that gradients are computed into
    uint64_t received = 0;   // of pieces of other shards' gradients under way
  };
  static Sizes sizes(const ShardLayout& layout, bool tied);

  static Result<std::unique_ptr<UnitStore>> create(Settings settings, Device& device, Kernels<T>& kernels);
  ~UnitStore() override;

  // The own slice of the weights, and the sums' slices; they outlive the store.
  void bind(const T* weights, std::vector<Wide<T>*> sums);
  // The own slice was, or will have been at `event`, written to: what is gathered is gathered again.
  void changed(std::shared_ptr<const Event> event);

  // A pass of the model is next. `backward`: gradients are computed as well; `lane`: they are lane number `*lane` of
  // the shard's and go into the sums (without it they go nowhere).
  void begin(bool backward, std::optional<uint32_t> lane);
  // The same pass on a rank that has no lane in it: weights are handed out, others' gradients are taken.
  void idle(Stream& stream, bool backward, std::optional<uint32_t> lane);
  // Waits until everything is added up. The first error, if there was one.
  Status drain();

  const T* weights(uint32_t unit) override;
  void release_weights(Stream& stream, uint32_t unit) override;
  Wide<T>* gradients(Stream& stream, uint32_t unit) override;
  void release_gradients(Stream& stream, uint32_t unit) override;

 private:
  static constexpr uint32_t kNobody = ~0u;
  struct WeightSlot {
    Buffer buffer;
    uint32_t unit = kNobody;  // whose weights are there, or on their way
    bool ready = false;       // guarded by mutex_
    std::shared_ptr<const Event> released;
  };
  struct GradientSlot {
    Buffer buffer;
    uint32_t unit = kNobody;
    bool open = false;  // being computed
    bool busy = false;  // guarded by mutex_: being dealt out
  };
  struct GatherJob {
    uint32_t unit = 0;
    uint32_t slot = 0;
    std::shared_ptr<const Event> free, source;
  };
  struct ReduceJob {
    uint32_t unit = 0;
    uint32_t lane = 0;
    uint32_t slot = kNobody;  // kNobody: nothing of this rank's
    std::shared_ptr<const Event> done;
  };

  UnitStore(Settings settings, Device& device, Kernels<T>& kernels);
  Status allocate();
  uint32_t slot_of(uint32_t unit) const;
  void request(uint32_t unit);
  void deal(uint32_t unit, uint32_t slot, std::shared_ptr<const Event> done);

  void gather_all(std::stop_token stop);
  void reduce_all(std::stop_token stop);
  Status gather(const GatherJob& job);
  Status reduce(const ReduceJob& job);
  Wide<T>* value(const ReduceJob& job, uint32_t value, uint64_t first) const;
  void fail(const Error& error);
  template <typename Until>
  void wait(Until&& until);

  const Settings settings_;
  Device& device_;
  const bool staged_;  // bytes go through the host's memory
  Kernels<T>& kernels_;
  const std::unique_ptr<Stream> gather_stream_, reduce_stream_;
  const T* own_weights_ = nullptr;
  std::vector<Wide<T>*> sums_;
  WeightSlot weights_[kUnitSlots];
  GradientSlot gradients_[kUnitSlots];
  Buffer received_;              // [shards][kStretch]
  Buffer host_sent_, host_got_;  // [shards][kStretch] each, of gradients; none where nothing is staged
  Buffer host_weights_;

  // Of the model's thread.
  std::vector<uint32_t> order_;
  size_t at_ = 0;
  bool backward_ = false;
  std::optional<uint32_t> lane_;
  std::shared_ptr<const Event> source_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<GatherJob> gathers_;
  std::deque<ReduceJob> reduces_;
  uint32_t under_way_ = 0;
  uint32_t moving_ = 0;  // threads in the middle of a job
  std::optional<Error> failure_;
  std::jthread gatherer_, reducer_;
};

}  // namespace pitcrew::trainer
