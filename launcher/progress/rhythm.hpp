#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/progress_page.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::launcher {

// What has been learned of a job's own rhythm. It outlives epochs, and the launcher's death as a small JSON text, so
// that the second epoch is judged as well as the first. A value; not thread-safe.
class Rhythm {
 public:
  // How long one step took: the mean of the `steps` that ended between two looks.
  void step_took(Duration mean, uint64_t steps = 1);
  // The longest time for which a training rank's line stood still and then moved again.
  void was_quiet(Duration time);
  void phase_took(page::Phase phase, Duration time);  // evaluating and saving
  void rate_was(double steps_per_second);

  // How long a training rank may go without finishing a step: five times the high quantile (95 %) of the last 128 means
  // of step times, twice the longest of them, and never less than the floor. Unset before `kEnough` steps are known.
  std::optional<Duration> step_limit(Duration floor) const;
  // How long a training rank's line may stand still altogether. It is tighter than step_limit() where ranks show their
  // collectives inside a long step; unset before 32 steps are known.
  std::optional<Duration> quiet_limit(Duration floor) const;
  std::optional<Duration> phase_limit(page::Phase phase) const;
  double best_rate() const { return best_rate_; }

  // A stall that was reported, so that the same one is given more time when it comes again.
  struct Judged {
    Step step;
    page::Phase phase = page::Phase::kTraining;
    Duration limit{0};
  };
  void judged(const Judged& stall);
  const Judged* find_judged(Step step, page::Phase phase) const;

  std::string save() const;
  // What save() wrote; anything else is an empty rhythm.
  static Rhythm load(std::string_view text);

  static constexpr size_t kEnough = 8;

 private:
  struct Longest {
    uint64_t count = 0;
    Duration longest{0};
  };
  Longest& longest_of(page::Phase phase) { return phase == page::Phase::kSaving ? saving_ : evaluating_; }

  std::vector<double> means_;  // seconds, a ring
  uint64_t means_seen_ = 0;
  uint64_t steps_seen_ = 0;
  double longest_quiet_ = 0;
  double best_rate_ = 0;
  Longest evaluating_;
  Longest saving_;
  std::vector<Judged> judged_;
};

}  // namespace pitcrew::launcher
