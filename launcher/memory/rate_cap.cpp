#include "launcher/memory/rate_cap.hpp"

#include <algorithm>

namespace pitcrew::launcher {

Duration RateCap::reserve(uint64_t bytes, Instant now) {
  if (rate_ <= 0) return Duration(0);
  empty_ = std::max(empty_, now) + from_seconds(static_cast<double>(bytes) / rate_);
  return std::max(Duration(0), empty_ - now - from_seconds(kBurst));
}

}  // namespace pitcrew::launcher
