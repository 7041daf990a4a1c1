#include "trainer/checkpoint/save_interval.hpp"

#include <algorithm>
#include <cmath>

namespace pitcrew::trainer {

namespace {

constexpr double kFailuresPerRankSecond = 419.0 / (16384.0 * 54 * 24 * 3600);
// A pause is never taken as shorter: the copy slows the step in ways that no clock around a call sees.
constexpr double kLeastCost = 0.01;

}  // namespace

Duration best_save_interval(Duration cost, Duration between_failures) {
  const double c = std::max(kLeastCost, to_seconds(cost)), m = to_seconds(between_failures);
  if (c >= 2 * m) return between_failures;
  const double ratio = c / (2 * m);
  return from_seconds(std::sqrt(2 * c * m) * (1 + std::sqrt(ratio) / 3 + ratio / 9) - c);
}

Duration time_between_failures(uint32_t ranks, uint64_t restarts, Duration trained) {
  const double expected = 1 / (kFailuresPerRankSecond * ranks);
  return from_seconds((expected + to_seconds(trained)) / static_cast<double>(1 + restarts));
}

void SaveSchedule::measured(Duration paused, Duration lasted) {
  paused_ = paused_ ? (*paused_ + paused) / 2 : paused;
  lasted_ = lasted_ ? (*lasted_ + lasted) / 2 : lasted;
}

Duration SaveSchedule::interval(Instant now) const {
  if (!paused_) return kFirst;
  const Duration best = best_save_interval(*paused_, time_between_failures(ranks_, restarts_, trained(now)));
  // A save is over, and the storage has rested as long, before the next begins.
  return std::min(std::max({best, 2 * *lasted_, kShortest}), std::max(kLongest, 2 * *lasted_));
}

}  // namespace pitcrew::trainer
