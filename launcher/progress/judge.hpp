#pragma once

#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "launcher/progress/rhythm.hpp"

namespace pitcrew::launcher {

struct JudgeSettings {
  std::optional<Duration> stall_after;  // unset: learned
  Duration start_within =
      minutes(10);               // for starting, restoring and the first step; and for all before anything is learned
  double slow_below = 0;         // of the job's own best rate; 0: not judged
  Duration floor = seconds(10);  // no learned limit is shorter
  Duration interval = milliseconds(500);  // between two looks
};

// One local rank at the moment of a look.
struct RankView {
  page::LineCopy line;
  bool alive = true;
  bool output_blocked = false;  // it waits, or is about to, for whoever reads our output
};

// A rank has not gone forward within its limit.
struct Stall {
  Step step;
  page::Phase phase = page::Phase::kTraining;
  Duration without_progress{0};
  Duration limit{0};
  uint32_t local_rank = 0;          // that exceeded it first
  std::optional<uint32_t> culprit;  // the local rank that the others wait for; unset: they wait for another pod
};

// The steps have become slow. Reported; nothing is restarted for it.
struct Slow {
  double rate = 0;  // steps a second
  double best = 0;
  std::optional<uint32_t> straggler;  // the local rank that waits the least for the others
};

struct Verdict {
  std::optional<Stall> stall;
  std::optional<Slow> slow;
};

// The rank that the others wait for: of those that stand still, one that is in no collective, with the lowest sequence;
// else the one with the lowest sequence. Unset where all wait in the same collective (the culprit is on another pod) or
// there is only one, waiting.
std::optional<uint32_t> find_culprit(std::span<const RankView> ranks);

// Looks at the ranks of one epoch and says when one of them hangs. Every stall is told once: another verdict needs
// progress in between. Time that says nothing of the ranks is not counted: while one of them waits for the reader of
// our output, while the others wait in a collective for one that evaluates, saves or restores within its own limit, and
// while this process itself did not run. Programs that never wrote to their line are not judged.
class Judge {
 public:
  // The rhythm is learned into and outlives the judge.
  Judge(JudgeSettings settings, size_t ranks, Instant start, Rhythm& rhythm);

  Verdict look(Instant now, std::span<const RankView> ranks);

  // A stall has been told and nothing has moved since.
  bool stalled() const { return told_; }
  // Over the last window in which all ranks trained; 0: not known.
  double steps_per_second() const { return step_rate_; }
  double samples_per_second() const { return sample_rate_; }
  // Time for which ranks waited for the reader of our output.
  Duration output_blocked() const { return output_blocked_; }

 private:
  struct Mark {
    bool seen = false;  // has ever written to its line
    uint64_t updates = 0;
    Step step;
    page::Phase phase = page::Phase::kStarting;
    Instant progressed;       // excused time is added
    Instant moved;            // when the line changed last, likewise
    Instant phase_since;      // as the clock said
    bool whole_step = false;  // `progressed` is the end of a step of this phase
  };
  struct Point {
    Instant time;
    Step step;
    uint64_t samples = 0;
  };

  void note(Mark& mark, const page::LineCopy& line, Instant now);
  Duration limit_of(const Mark& mark) const;
  std::optional<Stall> find_stall(Instant now, std::span<const RankView> ranks) const;
  std::optional<Slow> judge_rate(Instant now, std::span<const RankView> ranks);

  JudgeSettings settings_;
  Rhythm& rhythm_;
  std::vector<Mark> marks_;
  Instant last_look_;
  bool told_ = false;

  std::deque<Point> window_;
  std::vector<uint32_t> waiting_looks_;
  uint32_t window_looks_ = 0;
  double step_rate_ = 0;
  double sample_rate_ = 0;
  uint32_t slow_windows_ = 0;
  bool slow_told_ = false;
  Duration output_blocked_{0};
};

}  // namespace pitcrew::launcher
