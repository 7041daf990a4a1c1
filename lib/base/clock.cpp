#include "lib/base/clock.hpp"

namespace pitcrew {

RealClock::RealClock()
    : wall_at_start_(std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch())),
      steady_at_start_(std::chrono::steady_clock::now()) {}

Instant RealClock::now() const { return wall_at_start_ + (std::chrono::steady_clock::now() - steady_at_start_); }

Instant ManualClock::now() const {
  std::lock_guard lock(mutex_);
  return now_;
}

void ManualClock::advance(Duration by) {
  std::lock_guard lock(mutex_);
  now_ += by;
}

}  // namespace pitcrew
