#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace pitcrew::trainer {

// How checkpoints move bytes between the device and host memory beside the computation. Snapshots go through it, so
// that tests can put a slow one in its place. Copies are done in the order in which they were asked for.
//
// begin(), copy_out() and hold_compute() are called by the training thread, wait() by any thread.
class Copier {
 public:
  using Ticket = uint64_t;  // grows with every copy; 0: nothing to wait for

  virtual ~Copier() = default;
  // Copies that follow see all that the compute stream has been given so far.
  virtual void begin() = 0;
  // Device to host. Returns at once.
  virtual Ticket copy_out(std::byte* host, const std::byte* device, size_t bytes) = 0;
  // What the compute stream is given from now on runs only when the copy is done; where the device is the CPU, blocks.
  virtual void hold_compute(Ticket ticket) = 0;
  // Blocks until the copy is done.
  virtual void wait(Ticket ticket) = 0;
  // Host to device, done when it returns.
  virtual void copy_in(std::byte* device, const std::byte* host, size_t bytes) = 0;
};

// A Copier for tensors in host memory that the training thread itself computes on: one thread that copies. It ends, all
// copies done, with its destructor.
class ThreadCopier final : public Copier {
 public:
  ThreadCopier();
  ~ThreadCopier() override;
  void begin() override {}
  Ticket copy_out(std::byte* host, const std::byte* device, size_t bytes) override;
  void hold_compute(Ticket ticket) override { wait(ticket); }
  void wait(Ticket ticket) override;
  void copy_in(std::byte* device, const std::byte* host, size_t bytes) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pitcrew::trainer
