#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::check {

// One GPU, or what stands in for it.
struct Device {
  std::string uuid;
  std::string model;  // NVIDIA H200
  uint64_t memory_bytes = 0;
};

// A pattern written to a device's memory and read back.
struct MemoryOutcome {
  uint64_t bytes = 0;         // covered
  uint64_t passes = 0;        // each with another pattern
  uint64_t wrong_words = 0;   // of 8 bytes
  uint64_t first_wrong = 0;   // its offset
  uint64_t flipped_bits = 0;  // of all wrong words, ored
  double copy_bandwidth = 0;  // bytes a second, read and written
};

// The same matrix product again and again: what every repetition gave, as a digest of all its bits.
struct BurnOutcome {
  std::vector<uint64_t> digests;
  double flops = 0;  // a second
};

// Copies between the host and a device.
struct HostOutcome {
  double to_device = 0, from_device = 0;  // bytes a second
  uint64_t wrong_bytes = 0;               // after there and back
};

// An all-reduce over all devices. Bus bandwidth is what nccl-tests calls so: 2(n-1)/n times the bytes a second.
struct CollectiveOutcome {
  double bus_bandwidth = 0;  // bytes a second
  uint64_t wrong_elements = 0;
};

// What the tests run on. Functions about one device may be called for several at once, each from a thread of its own;
// each ends by itself within the time that its settings allow. An error means that the test could not be done, not that
// the device is bad; a device that stops answering in the middle of a test is kDataLoss.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // cuda, cpu
  virtual const std::vector<Device>& devices() const = 0;
  // Patterns over `share` of the memory that is free, for about `time`, at least once.
  virtual Result<MemoryOutcome> memory(size_t device, double share, Duration time, uint64_t seed) = 0;
  // Products of matrices that depend on the seed alone, for about `time`, at least two.
  virtual Result<BurnOutcome> burn(size_t device, Duration time, uint64_t seed) = 0;
  virtual Result<HostOutcome> host(size_t device, Duration time, uint64_t seed) = 0;
  // Needs two devices.
  virtual Result<CollectiveOutcome> all_reduce(Duration time, uint64_t seed) = 0;
};

}  // namespace pitcrew::check
