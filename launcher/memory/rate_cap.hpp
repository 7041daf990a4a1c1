#pragma once

#include <cstdint>

#include "lib/base/time.hpp"

namespace pitcrew::launcher {

// Spreads what is sent so that it stays below a rate, all senders together: a bucket that holds a quarter of a second.
// Pure; of one thread.
class RateCap {
 public:
  // 0: no cap.
  explicit RateCap(uint64_t bytes_per_second) : rate_(static_cast<double>(bytes_per_second)) {}

  // How long the sender has to wait before it sends `bytes`; they count as sent. Of several, who asks first goes first.
  Duration reserve(uint64_t bytes, Instant now);

 private:
  static constexpr double kBurst = 0.25;  // seconds
  const double rate_;
  Instant empty_;  // when all that was reserved has flowed off at the rate
};

}  // namespace pitcrew::launcher
