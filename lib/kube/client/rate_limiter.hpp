#pragma once

#include <optional>

#include "lib/base/time.hpp"

namespace pitcrew::kube {

// A token bucket that hands out times: `rate` tokens a second, `burst` at once. Pure.
class RateLimiter {
 public:
  RateLimiter(double rate, double burst) : rate_(rate), burst_(burst), current_(rate), tokens_(burst) {}

  // Takes a token and says how long to wait before using it.
  Duration reserve(Instant now);
  // Takes a token where one is there.
  bool try_take(Instant now);
  // The other side said that it is too much: what was saved up is gone and the rate is halved, down to a twentieth, at
  // most once a second. It grows back by a twentieth of the whole a second (AIMD).
  void too_much(Instant now);
  double rate() const { return current_; }

 private:
  void refill(Instant now);

  double rate_;
  double burst_;
  double current_;  // at most rate_
  double tokens_;   // negative: promised already
  Instant last_;
  std::optional<Instant> halved_;
  bool started_ = false;
};

}  // namespace pitcrew::kube
