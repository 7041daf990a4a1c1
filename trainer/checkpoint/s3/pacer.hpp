#pragma once

#include <algorithm>

#include "lib/base/random.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::trainer::s3 {

// How fast requests go out and how long a failed one waits. Pure; its owner guards it.
//
// A failed request waits for a random time below a bound that doubles ("full jitter"; M. Brooker, "Exponential Backoff
// And Jitter", AWS Architecture Blog, 2015), or as long as the server said. On "slow down" all requests, not only that
// one, keep a distance, which doubles with each more and shrinks with each success: more when it hurts, less as it gets
// better.
class Pacer {
 public:
  static constexpr Duration kFirstWait = milliseconds(100);
  static constexpr Duration kLongestWait = seconds(20);
  static constexpr Duration kFirstDistance = milliseconds(10);
  static constexpr Duration kLongestDistance = seconds(1);

  explicit Pacer(uint64_t seed) : random_(seed) {}

  // How long a request that would begin now has to wait; its place is taken.
  Duration turn(Instant now) {
    const Instant start = std::max(now, next_);
    next_ = start + distance_;
    return start - now;
  }
  void slow_down() { distance_ = std::clamp(2 * distance_, kFirstDistance, kLongestDistance); }
  void succeeded() {
    distance_ = distance_ * 9 / 10;
    if (distance_ < milliseconds(1)) distance_ = Duration{0};
  }
  Duration distance() const { return distance_; }

  // Before attempt number `attempt` + 1, the first being 1.
  Duration before_retry(int attempt) {
    const Duration bound = std::min(kLongestWait, kFirstWait * (1 << std::min(attempt - 1, 16)));
    return from_seconds(to_seconds(bound) * random_.uniform());
  }

 private:
  Random random_;
  Instant next_;
  Duration distance_{0};
};

}  // namespace pitcrew::trainer::s3
