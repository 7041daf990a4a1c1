#include "lib/kube/client/rate_limiter.hpp"

#include <algorithm>

namespace pitcrew::kube {

void RateLimiter::refill(Instant now) {
  if (!started_) {
    started_ = true;
    last_ = now;
  }
  if (now <= last_) return;
  tokens_ = std::min(burst_, tokens_ + to_seconds(now - last_) * rate_);
  last_ = now;
}

Duration RateLimiter::reserve(Instant now) {
  refill(now);
  tokens_ -= 1;
  return tokens_ >= 0 ? Duration(0) : from_seconds(-tokens_ / rate_);
}

bool RateLimiter::try_take(Instant now) {
  refill(now);
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

}  // namespace pitcrew::kube
