#pragma once

#include "trainer/comm/comm.hpp"

namespace pitcrew::trainer {

class Stream;

// Collectives as pieces of work of a device's stream: they are enqueued and the caller goes on, so that the host waits
// for nobody in the middle of a pass. Where a Comm has this, what it moves lies in the device's memory.
//
// All ranks enqueue the same ones in the same order, from one thread of each. A peer that doesn't come, or is gone,
// ends the collective, and every later one: the stream passes, and what has not come by then is not written. status()
// says so from then on; what is enqueued afterwards fails at once.
class StreamComm {
 public:
  virtual ~StreamComm() = default;
  virtual Status all_gather(Stream& stream, std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  virtual Status exchange(Stream& stream, std::span<const Comm::Send> sends,
                          std::span<const Comm::Receive> receives) = 0;
  // The first failure. From any thread.
  virtual Status status() const = 0;
};

}  // namespace pitcrew::trainer
