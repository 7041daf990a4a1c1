#pragma once

#include "lib/base/time.hpp"

namespace pitcrew::kube {

// A token bucket that hands out times: `rate` tokens a second, `burst` at once. Pure.
class RateLimiter {
 public:
  RateLimiter(double rate, double burst) : rate_(rate), burst_(burst), tokens_(burst) {}

  // Takes a token and says how long to wait before using it.
  Duration reserve(Instant now);
  // Takes a token where one is there.
  bool try_take(Instant now);

 private:
  void refill(Instant now);

  double rate_;
  double burst_;
  double tokens_;  // negative: promised already
  Instant last_;
  bool started_ = false;
};

}  // namespace pitcrew::kube
