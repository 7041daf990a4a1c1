#include "lib/kube/client/rate_limiter.hpp"

#include <algorithm>

namespace pitcrew::kube {
namespace {

constexpr double kSmallestPart = 0.05;  // of the rate: what is left at worst, and what grows back in a second
constexpr Duration kBetweenHalvings = seconds(1);

}  // namespace

void RateLimiter::refill(Instant now) {
  if (!started_) {
    started_ = true;
    last_ = now;
  }
  if (now <= last_) return;
  tokens_ = std::min(burst_, tokens_ + to_seconds(now - last_) * current_);
  current_ = std::min(rate_, current_ + to_seconds(now - last_) * rate_ * kSmallestPart);
  last_ = now;
}

Duration RateLimiter::reserve(Instant now) {
  refill(now);
  tokens_ -= 1;
  return tokens_ >= 0 ? Duration(0) : from_seconds(-tokens_ / current_);
}

bool RateLimiter::try_take(Instant now) {
  refill(now);
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

void RateLimiter::too_much(Instant now) {
  refill(now);
  tokens_ = std::min(tokens_, 0.0);
  if (halved_ && now - *halved_ < kBetweenHalvings) return;
  halved_ = now;
  current_ = std::max(rate_ * kSmallestPart, current_ / 2);
}

}  // namespace pitcrew::kube
