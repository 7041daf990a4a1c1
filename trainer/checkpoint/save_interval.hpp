#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/clock.hpp"

namespace pitcrew::trainer {

// The time between saves that loses least: what saves cost against what a failure throws away. Daly's formula (J. T.
// Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", 2006), of which Young's √(2
// cost × mean time between failures) is the first term.
Duration best_save_interval(Duration cost, Duration between_failures);

// How often ranks fail, from what is known beforehand and what was seen: one failure is taken as seen in the time that
// the field's rate predicts for it (419 unexpected interruptions of 16,384 GPUs in 54 days; Llama 3 paper, table 5).
Duration time_between_failures(uint32_t ranks, uint64_t restarts, Duration trained);

// When to save, from measured costs: `every: {auto: true}`. Owned and called by the training thread of rank 0. Until
// the first save has been measured it asks for one after kFirst.
class SaveSchedule {
 public:
  static constexpr Duration kFirst = minutes(1);
  static constexpr Duration kShortest = seconds(10);
  static constexpr Duration kLongest = minutes(60);

  // `restarts` and `trained`: of all epochs before this one.
  SaveSchedule(uint32_t ranks, uint64_t restarts, Duration trained, Instant now)
      : ranks_(ranks), restarts_(restarts), trained_before_(trained), began_(now), last_(now) {}

  bool due(Instant now) const { return now - last_ >= interval(now); }
  void begun(Instant now) { last_ = now; }
  // A save came to its end: training stood still for `paused`, and the save took `lasted` from its beginning. Later
  // saves count for more.
  void measured(Duration paused, Duration lasted);
  Duration interval(Instant now) const;
  Duration trained(Instant now) const { return trained_before_ + (now - began_); }

 private:
  const uint32_t ranks_;
  const uint64_t restarts_;
  const Duration trained_before_;
  const Instant began_;
  Instant last_;
  std::optional<Duration> paused_, lasted_;
};

}  // namespace pitcrew::trainer
