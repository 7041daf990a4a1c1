#pragma once

#include <deque>
#include <memory>
#include <mutex>

#include "trainer/checkpoint/copier.hpp"
#include "trainer/device/device.hpp"
#include "trainer/kernels/state_kernels.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// The device memory that snapshots of a state need: known before anything is allocated.
struct SnapshotPlan {
  uint64_t bounce = 0;   // where the end of a snapshot waits for its copy
  uint64_t staging = 0;  // where floats that are kept in two halves are joined
  uint64_t pieces = 0, digests = 0;
  uint64_t bytes() const;  // of the device
};
// Of the slice of a state of `bytes` in `tensors` tensors that one of `holders` saves. `part`: of the slice, what is to
// be copied within the device so that the optimizer needn't wait for the host to have it.
SnapshotPlan plan_snapshot(uint64_t bytes, size_t tensors, uint32_t holders, double part, bool halves);

// Copies on a side stream of a device, ordered against the compute stream by events. snapshot(), begin(), copy_out()
// and hold_compute() on the training thread, the rest on any. Ends, all copies done, with its destructor.
//
// A snapshot's copies take bytes / bandwidth; the next step's forward and backward hide that much of it. What is beyond
// goes through the bounce buffer: the last pieces, which the optimizer reaches last, are copied there at once (device
// memory is some 40 times faster than the bus) and from there to the host when the rest is there. So the optimizer
// waits for max(0, (bytes - bounce) / bandwidth - time of forward and backward), and for each piece by itself.
class DeviceCopier final : public Copier {
 public:
  // Copies alone: digests are left to the host, and no tensor may be in two halves.
  DeviceCopier(Device& device, Stream& compute);
  static Result<std::unique_ptr<DeviceCopier>> create(Device& device, Stream& compute, StateKernels kernels,
                                                      const SnapshotPlan& plan);
  ~DeviceCopier() override;

  std::vector<Tickets> snapshot(std::span<const Piece> pieces) override;
  bool makes_digests() const override { return kernels_.digest != nullptr; }
  void begin() override { side_->wait(compute_.record()); }
  Ticket copy_out(std::byte* host, const std::byte* from, size_t bytes) override;
  void hold_compute(Ticket ticket) override;
  void wait(Ticket ticket) override;
  void copy_in(std::byte* to, const std::byte* host, size_t bytes) override;
  void begin_copy_in(std::byte* to, std::byte* remainders, const std::byte* host, size_t bytes) override;
  Ticket copied_in() override { return mark(); }
  Result<Buffer> allocate_host(size_t bytes) override { return device_.allocate_host("checkpoint", bytes); }
  bool registers() const override { return !device_.host_memory(); }
  Result<Buffer> register_host(std::byte* data, size_t bytes) override { return device_.register_host(data, bytes); }

 private:
  void digest(std::span<const Piece> pieces);
  // A part of a piece from its byte `from` on, into device memory as the host shall have it.
  void gather(const Piece& piece, uint64_t from, uint64_t bytes, std::byte* to);
  void copy_head(const Piece& piece, uint64_t bytes);
  Ticket mark();
  // Null: done long ago.
  std::shared_ptr<const Event> find(Ticket ticket);

  Device& device_;
  Stream& compute_;
  StateKernels kernels_;
  SnapshotPlan plan_;
  Buffer bounce_;
  Buffer staging_;
  Buffer table_, host_table_;  // of DigestRanges
  Buffer digests_;
  std::shared_ptr<const Event> table_read_;
  std::unique_ptr<Stream> side_;
  std::mutex mutex_;
  std::deque<std::shared_ptr<const Event>> events_;
  Ticket first_ = 1;  // of events_.front()
};

}  // namespace pitcrew::trainer
