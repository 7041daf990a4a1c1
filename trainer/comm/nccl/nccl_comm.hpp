#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/time.hpp"
#include "trainer/comm/comm.hpp"
#include "trainer/comm/nccl/library.hpp"
#include "trainer/comm/nccl/peer_watch.hpp"
#include "trainer/device/device.hpp"

namespace pitcrew::trainer {

struct NcclSettings {
  std::string group = "world";                // for messages, and to tell groups apart
  std::vector<uint32_t> members;              // the world's rank of each of the group's; empty: they are the same
  Duration connect_timeout = minutes(5);      // until all ranks have met
  Duration collective_timeout = minutes(30);  // of a collective; longer than any launcher's stall limit
  std::function<bool()> cancelled;            // asked while they meet
  Duration end_timeout = seconds(5);          // for NCCL to let go of a communicator, and for a peer that has left
};

// Moves bytes that lie in the device's memory, by NCCL, on a stream of its own. Non-blocking: every call of NCCL
// returns at once, and what it began is polled for, so that no failure of a peer holds the caller for longer than the
// timeout. Who is to blame is PeerWatch's to say. Sums are ours; all_reduce_sum() is for the mode that lets NCCL add.
//
// One per group of ranks. Collectives from one thread, NCCL's calls too: abort() only leaves word, and the thread that
// polls, or the next call, aborts NCCL's communicator. Destroyed in good health it waits, at most end_timeout, for NCCL
// to finish; after an error it never does. Device and watch outlive it.
//
// Sends need not wait for the receiver, and may. Sizes that disagree are not noticed.
class NcclComm final : public Comm {
 public:
  // `meeting` reaches the same ranks in host memory; it carries the unique id and is not kept. Collective. Errors as
  // Comm's, and kUnsupported: NCCL refuses (two ranks on one GPU, for instance).
  static Result<std::unique_ptr<NcclComm>> create(std::shared_ptr<const nccl::Api> api, Comm& meeting, Device& device,
                                                  PeerWatch* watch, NcclSettings settings);
  ~NcclComm() override;

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }
  bool device_memory() const override { return true; }

  // The next collective starts, on the device, after `event`: what writes to what it sends, or reads what it
  // overwrites. The caller needs no wait of its own.
  void after(std::shared_ptr<const Event> event) { after_ = std::move(event); }

  Status barrier() override;
  Status broadcast(std::span<std::byte> data, uint32_t root) override;
  Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override;

  // In NCCL's order of addition, which depends on topology and number of ranks: not reproducible. In place.
  Status all_reduce_sum(std::span<float> values);
  // `values` holds size() parts, `mine` gets the sum of this rank's.
  Status reduce_scatter_sum(std::span<const float> values, std::span<float> mine);

  void abort() override { aborted_ = true; }
  // The world's rank.
  std::optional<uint32_t> lost_peer() const override { return lost_; }

 private:
  NcclComm(std::shared_ptr<const nccl::Api> api, Comm& meeting, Device& device, PeerWatch* watch,
           NcclSettings settings);
  Status meet(Comm& meeting);
  template <typename Enqueue>
  Status collective(const char* what, Enqueue&& enqueue);
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
  nccl::CommHandle comm_ = nullptr;
  std::shared_ptr<const Event> after_;
  uint64_t sequence_ = 0;
  Duration limit_{0};  // of what is waited for
  std::optional<std::chrono::steady_clock::time_point> left_since_;
  std::atomic<bool> aborted_{false};
  std::optional<Error> failure_;
  std::optional<uint32_t> lost_;
};

}  // namespace pitcrew::trainer
