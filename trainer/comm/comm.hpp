#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

class StreamComm;

// Moves bytes between the ranks of an epoch. It never adds: sums are made by `parallel`, in an order of ours.
//
// Every function but abort() is a collective: all ranks call the same ones in the same order, from one thread of each.
// They block. Errors: kUnavailable (a peer is gone; the message names its rank), kDeadlineExceeded (a peer did not come
// in time; named), kCancelled (abort() was called). After an error the communicator is dead: every later call fails at
// once.
class Comm {
 public:
  // Part of an exchange: bytes for, or from, one peer. Sizes must agree on both sides.
  struct Send {
    uint32_t peer;
    std::span<const std::byte> data;
  };
  struct Receive {
    uint32_t peer;
    std::span<std::byte> data;
  };

  virtual ~Comm() = default;
  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;
  // Whether what is sent and received lies in the device's memory; else in the host's.
  virtual bool device_memory() const { return false; }
  // The same ranks' collectives as work of a device's stream (stream_comm.hpp); null where there are none. Either way
  // counts: a rank uses one of them.
  virtual StreamComm* in_stream_order() { return nullptr; }

  virtual Status barrier() = 0;
  // `data` has the same size everywhere; afterwards everybody holds the root's.
  virtual Status broadcast(std::span<std::byte> data, uint32_t root) = 0;
  // `mine` has the same size everywhere; `all` holds size() of them, by rank.
  virtual Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // Any number of messages to and from any peers at once, without deadlock; between two ranks they keep their order.
  virtual Status exchange(std::span<const Send> sends, std::span<const Receive> receives) = 0;

  // Ends all calls, present and future, with kCancelled. From any thread; returns at once.
  virtual void abort() = 0;

  // Whom the communicator died of, where one peer is to blame: the rank that is gone or did not come, even if another
  // rank saw it first. Empty while it lives, and after abort().
  virtual std::optional<uint32_t> lost_peer() const { return std::nullopt; }
};

}  // namespace pitcrew::trainer
