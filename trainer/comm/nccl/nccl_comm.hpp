#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "lib/base/time.hpp"
#include "trainer/comm/nccl/library.hpp"
#include "trainer/comm/nccl/peer_watch.hpp"
#include "trainer/comm/observed_comm.hpp"
#include "trainer/comm/stream_comm.hpp"
#include "trainer/device/device.hpp"

namespace pitcrew::trainer {

struct NcclSettings {
  std::string group = "world";                // for messages, and to tell groups apart
  std::vector<uint32_t> members;              // the world's rank of each of the group's; empty: they are the same
  Duration connect_timeout = minutes(5);      // until all ranks have met
  Duration collective_timeout = minutes(30);  // of a collective; longer than any launcher's stall limit
  std::function<bool()> cancelled;            // asked while they meet
  Duration end_timeout = seconds(5);          // for NCCL to let go of a communicator, and for a peer that has left
  // Of collectives in a stream's order, told by the thread that watches them when the device comes to one and when it
  // has passed: what ObservedComm does for the others.
  ObservedComm::Observer observer = {};
  FlightRecorder::Track* recorder = nullptr;
};

// Moves bytes that lie in the device's memory, by NCCL, on a stream of its own. Non-blocking: every call of NCCL
// returns at once, and what it began is polled for, so that no failure of a peer holds the caller for longer than the
// timeout. Who is to blame is PeerWatch's to say. Sums are ours; all_reduce_sum() is for the mode that lets NCCL add.
//
// One per group of ranks. Collectives from one thread; NCCL's calls are made under a lock, by that thread or by the one
// that watches what is in a stream's order. abort() only leaves word, for all communicators of the watch: the thread
// that polls, or the next call, aborts NCCL's. Destroyed in good health it waits, at most end_timeout, for NCCL to
// finish; after an error it never does. Device, watch and the streams that were used outlive it.
//
// In a stream's order a collective's time counts from when the device has come to it. One that fails is aborted, and
// the stream goes on; should NCCL not let go of it even then, whoever waits for that stream waits for ever.
//
// Sends need not wait for the receiver, and may. Sizes that disagree are not noticed.
class NcclComm final : public Comm, public StreamComm {
 public:
  // `meeting` reaches the same ranks in host memory; it carries the unique id and is not kept. Collective. Errors as
  // Comm's, and kUnsupported: NCCL refuses (two ranks on one GPU, for instance).
  static Result<std::unique_ptr<NcclComm>> create(std::shared_ptr<const nccl::Api> api, Comm& meeting, Device& device,
                                                  PeerWatch* watch, NcclSettings settings);
  ~NcclComm() override;

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }
  bool device_memory() const override { return true; }
  StreamComm* in_stream_order() override { return this; }

  // The next collective starts, on the device, after `event`: what writes to what it sends, or reads what it
  // overwrites. The caller needs no wait of its own.
  void after(std::shared_ptr<const Event> event) { after_ = std::move(event); }

  Status barrier() override;
  Status broadcast(std::span<std::byte> data, uint32_t root) override;
  Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override;

  Status all_gather(Stream& stream, std::span<const std::byte> mine, std::span<std::byte> all) override;
  Status exchange(Stream& stream, std::span<const Send> sends, std::span<const Receive> receives) override;
  Status status() const override;

  // In NCCL's order of addition, which depends on topology and number of ranks: not reproducible. In place.
  Status all_reduce_sum(std::span<float> values);
  // `values` holds size() parts, `mine` gets the sum of this rank's.
  Status reduce_scatter_sum(std::span<const float> values, std::span<float> mine);

  void abort() override;
  // The world's rank.
  std::optional<uint32_t> lost_peer() const override;

 private:
  NcclComm(std::shared_ptr<const nccl::Api> api, Comm& meeting, Device& device, PeerWatch* watch,
           NcclSettings settings);
  Status meet(Comm& meeting);
  // A collective in a stream's order that the stream may not have passed yet.
  struct UnderWay {
    const char* kind;
    uint64_t bytes;
    uint64_t sequence;
    std::shared_ptr<const Event> ready, passed;
    std::optional<std::chrono::steady_clock::time_point> begun = {};
  };

  template <typename Enqueue>
  Status collective(const char* what, Enqueue&& enqueue);
  template <typename Enqueue>
  Status enqueued(Stream& stream, const char* what, uint64_t bytes, Enqueue&& enqueue);
  template <typename Enqueue>
  Status begin(Stream& stream, const std::string& name, Enqueue&& enqueue);
  Status check_gather(size_t mine, size_t all) const;
  Status check_peers(std::span<const Send> sends, std::span<const Receive> receives) const;
  int post(nccl::StreamHandle stream, std::span<const Send> sends, std::span<const Receive> receives);
  std::string named(const char* what) const { return std::string(what) + " in the " + settings_.group; }
  void watch_streams(const std::stop_token& stop);
  bool look_at_first();
  void first_ended(bool done);
  Status wait(const std::string& what, Duration timeout, const std::function<bool(int state)>& done);
  std::optional<Error> trouble(const std::string& what);
  Error refused(const std::string& what, int result);
  Error give_up(Code code, std::string why, bool own_fault);
  void end(bool in_good_health);
  uint32_t world_rank(uint32_t member) const { return settings_.members.empty() ? member : settings_.members[member]; }

  const std::shared_ptr<const nccl::Api> api_;
  const NcclSettings settings_;
  const uint32_t rank_;
  const uint32_t size_;
  PeerWatch* const watch_;  // null: nobody can be named
  Buffer scratch_;          // a byte for each rank, and two for empty messages
  std::unique_ptr<Stream> stream_;
  std::shared_ptr<const Event> after_;
  std::atomic<bool> aborted_{false};
  std::atomic<int64_t> lost_{-1};  // -1: nobody

  mutable std::mutex mutex_;  // guards all below
  nccl::CommHandle comm_ = nullptr;
  uint64_t sequence_ = 0;  // of collectives begun
  uint64_t waits_in_ = 0;  // the number of the one that this rank has come to
  Duration limit_{0};      // of what is waited for
  std::optional<std::chrono::steady_clock::time_point> left_since_;
  std::optional<Error> failure_;
  std::deque<UnderWay> under_way_;
  std::chrono::steady_clock::time_point look_at_;
  std::condition_variable_any changed_;
  std::jthread watcher_;  // from the first collective in a stream's order on
};

}  // namespace pitcrew::trainer
