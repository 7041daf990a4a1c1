#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "trainer/device/device.hpp"

namespace pitcrew::trainer {

// How checkpoints move bytes between the device and host memory beside the computation. Snapshots go through it, so
// that tests can put a slow one in its place. Copies are done in the order in which they were asked for.
//
// snapshot(), begin(), copy_out() and hold_compute() are called by the training thread, the rest by any thread.
class Copier {
 public:
  using Ticket = uint64_t;  // grows with every copy; 0: nothing to wait for

  // One run of a tensor's elements, and where it goes to.
  struct Piece {
    std::byte* host = nullptr;
    const std::byte* device = nullptr;
    const std::byte* remainders = nullptr;  // as StateTensor's: `device` holds the upper halves of floats
    size_t bytes = 0;                       // on the host
    uint64_t* digests = nullptr;            // host; of each MiB, where makes_digests()
  };
  struct Tickets {
    Ticket free = 0;    // the piece may be written to
    Ticket copied = 0;  // the host has it, and its digests
  };

  virtual ~Copier() = default;
  // All of a snapshot, as the compute stream has left it. Returns at once. Tickets are those of the pieces.
  virtual std::vector<Tickets> snapshot(std::span<const Piece> pieces);
  // Whether snapshot() fills `digests`, computed on the device before the copy.
  virtual bool makes_digests() const { return false; }

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
  // The same, done when the ticket of copied_in() is; with `remainders`, floats that are kept in two halves.
  virtual void begin_copy_in(std::byte* device, std::byte* remainders, const std::byte* host, size_t bytes);
  // Of all that begin_copy_in() was given so far.
  virtual Ticket copied_in() { return 0; }

  // Host memory that copies run at full speed with.
  virtual Result<Buffer> allocate_host(size_t bytes);
  // Whether host memory of others' has to be registered for that: takes seconds for tens of gigabytes.
  virtual bool registers() const { return false; }
  // Until the buffer dies. From any thread.
  virtual Result<Buffer> register_host(std::byte* data, size_t bytes);
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
