#include "launcher/progress/judge.hpp"

#include <algorithm>

namespace pitcrew::launcher {
namespace {

using page::Phase;

// A window for rates: long enough for slow steps, short enough for a person who watches.
constexpr Duration kWindow = seconds(10);
constexpr uint64_t kWindowSteps = 5;
constexpr uint32_t kSlowWindows = 3;
// How much less than the others a straggler must wait to be named: a share of the looks.
constexpr double kStragglerGap = 0.3;

// The operator acts on these by itself, or nothing is left to wait for.
bool exempt(Phase phase) { return phase == Phase::kLostPeer || phase == Phase::kDone; }

// Phases in which a line that moves is progress enough.
bool beats(Phase phase) { return phase == Phase::kRestoring || phase == Phase::kEvaluating || phase == Phase::kSaving; }

bool judged(const RankView& rank) { return rank.alive && rank.line.updates > 0 && !exempt(rank.line.phase); }

}  // namespace

std::optional<uint32_t> find_culprit(std::span<const RankView> ranks) {
  std::optional<uint32_t> culprit;
  size_t candidates = 0;
  bool same = true;
  for (uint32_t i = 0; i < ranks.size(); ++i) {
    if (!judged(ranks[i])) continue;
    ++candidates;
    if (!culprit) {
      culprit = i;
      continue;
    }
    const page::LineCopy& best = ranks[*culprit].line;
    const page::LineCopy& line = ranks[i].line;
    same = same && line.in_collective == best.in_collective && line.collective == best.collective;
    if (line.in_collective != best.in_collective ? best.in_collective : line.collective < best.collective) culprit = i;
  }
  if (!culprit) return std::nullopt;
  const bool waits = ranks[*culprit].line.in_collective;
  if (waits && (same || candidates == 1)) return std::nullopt;
  // Several ranks that all compute are all late: none of them is waited for by the others.
  if (!waits && same && candidates > 1) return std::nullopt;
  return culprit;
}

Judge::Judge(JudgeSettings settings, size_t ranks, Instant start, Rhythm& rhythm)
    : settings_(settings), rhythm_(rhythm), marks_(ranks), last_look_(start), waiting_looks_(ranks) {
  for (Mark& mark : marks_) mark.progressed = mark.moved = mark.phase_since = start;
}

void Judge::note(Mark& mark, const page::LineCopy& line, Instant now) {
  if (line.updates == mark.updates && mark.seen) return;
  const bool first = !mark.seen;
  mark.seen = line.updates > 0;
  if (!mark.seen) return;
  if (!first && line.phase == Phase::kTraining && mark.phase == Phase::kTraining) rhythm_.was_quiet(now - mark.moved);
  mark.updates = line.updates;
  mark.moved = now;
  const bool other_phase = first || line.phase != mark.phase;
  if (!other_phase && line.step > mark.step) {
    // Of the steps that ended since the first look at this phase, one may have begun before it.
    const uint64_t whole = line.step.value - mark.step.value - (mark.whole_step ? 0 : 1);
    if (line.phase == Phase::kTraining && whole > 0) {
      rhythm_.step_took((now - mark.progressed) / static_cast<int64_t>(whole), whole);
    }
    mark.progressed = now;
    mark.whole_step = true;
    told_ = false;
  } else if (other_phase) {
    if (!first) rhythm_.phase_took(mark.phase, now - mark.phase_since);
    mark.progressed = mark.phase_since = now;
    mark.whole_step = false;
    told_ = false;
  } else if (beats(line.phase)) {
    mark.progressed = now;
    told_ = false;
  }
  mark.phase = line.phase;
  mark.step = line.step;
}

Duration Judge::limit_of(const Mark& mark) const {
  Duration limit = settings_.start_within;
  switch (mark.phase) {
    case Phase::kStarting:
    case Phase::kRestoring:
    case Phase::kFirstStep:
      break;
    case Phase::kTraining:
      limit = settings_.stall_after ? *settings_.stall_after
                                    : rhythm_.step_limit(settings_.floor).value_or(settings_.start_within);
      break;
    case Phase::kEvaluating:
    case Phase::kSaving:
      limit = rhythm_.phase_limit(mark.phase).value_or(settings_.start_within);
      break;
    case Phase::kLostPeer:
    case Phase::kDone:
      break;
  }
  // The same place has been taken for a hang before, and restarting led back to it: it may be slow and nothing more.
  if (const auto* before = rhythm_.find_judged(mark.step, mark.phase)) {
    limit = std::max({limit, settings_.start_within, 4 * before->limit});
  }
  return limit;
}

std::optional<Stall> Judge::find_stall(Instant now, std::span<const RankView> ranks) const {
  std::optional<Stall> worst;
  const auto consider = [&](uint32_t i, Duration age, Duration limit) {
    if (age <= limit) return;
    if (worst && worst->without_progress - worst->limit >= age - limit) return;
    worst = Stall{marks_[i].step, marks_[i].phase, age, limit, i, std::nullopt};
  };
  for (uint32_t i = 0; i < ranks.size(); ++i) {
    if (!judged(ranks[i])) continue;
    const Mark& mark = marks_[i];
    consider(i, now - mark.progressed, limit_of(mark));
    if (mark.phase != Phase::kTraining || settings_.stall_after || rhythm_.find_judged(mark.step, mark.phase)) continue;
    if (const auto quiet = rhythm_.quiet_limit(settings_.floor)) consider(i, now - mark.moved, *quiet);
  }
  if (worst) worst->culprit = find_culprit(ranks);
  return worst;
}

Verdict Judge::look(Instant now, std::span<const RankView> ranks) {
  const Duration elapsed = now - last_look_;
  last_look_ = now;
  // A look that comes late says that this process did not run; most likely the ranks did not either.
  const Duration lost = elapsed > 3 * settings_.interval ? elapsed - settings_.interval : Duration(0);

  bool any_blocked = false, any_lost_peer = false, any_gone = false, any_other_phase = false;
  for (const RankView& rank : ranks) {
    any_blocked = any_blocked || (rank.alive && rank.output_blocked);
    any_gone = any_gone || (!rank.alive && rank.line.phase != Phase::kDone);
    any_lost_peer = any_lost_peer || (rank.alive && rank.line.phase == Phase::kLostPeer);
    any_other_phase = any_other_phase || (judged(rank) && rank.line.phase != Phase::kTraining);
  }
  if (any_blocked) output_blocked_ += elapsed;

  for (size_t i = 0; i < ranks.size(); ++i) {
    note(marks_[i], ranks[i].line, now);
    const bool waits_for_other =
        any_other_phase && ranks[i].line.phase == Phase::kTraining && ranks[i].line.in_collective;
    // An exit and a lost peer are causes of their own: what hangs because of them is not a second one.
    const bool excused = any_blocked || any_lost_peer || any_gone || waits_for_other;
    const Duration forgiven = excused ? elapsed : lost;
    marks_[i].progressed = std::min(now, marks_[i].progressed + forgiven);
    marks_[i].moved = std::min(now, marks_[i].moved + forgiven);
  }

  Verdict verdict;
  if (!told_) {
    verdict.stall = find_stall(now, ranks);
    if (verdict.stall) {
      told_ = true;
      rhythm_.judged({verdict.stall->step, verdict.stall->phase, verdict.stall->limit});
    }
  }
  if (lost > Duration(0) || any_blocked) window_.clear();
  verdict.slow = judge_rate(now, ranks);
  return verdict;
}

std::optional<Slow> Judge::judge_rate(Instant now, std::span<const RankView> ranks) {
  std::optional<Point> point;
  for (const RankView& rank : ranks) {
    if (!rank.alive || rank.line.updates == 0 || rank.line.phase != Phase::kTraining) {
      point.reset();
      break;
    }
    if (!point || rank.line.step < point->step) point = Point{now, rank.line.step, rank.line.samples};
  }
  if (!point) {
    window_.clear();
    return std::nullopt;
  }
  if (window_.empty()) {
    std::fill(waiting_looks_.begin(), waiting_looks_.end(), 0);
    window_looks_ = 0;
    window_.push_back(*point);
    return std::nullopt;
  }
  ++window_looks_;
  for (size_t i = 0; i < ranks.size(); ++i) waiting_looks_[i] += ranks[i].line.in_collective ? 1 : 0;
  // Rates are taken from step to step: a window that ends inside a step would count it as nothing.
  if (point->step == window_.back().step) return std::nullopt;
  window_.push_back(*point);
  const Duration span = now - window_.front().time;
  const double length = to_seconds(span);
  const uint64_t steps = point->step.value - window_.front().step.value;
  step_rate_ = static_cast<double>(steps) / length;
  sample_rate_ = static_cast<double>(point->samples - window_.front().samples) / length;
  if (span < kWindow || steps < kWindowSteps) return std::nullopt;

  rhythm_.rate_was(step_rate_);
  const double best = rhythm_.best_rate();
  std::optional<Slow> slow;
  if (settings_.slow_below > 0 && step_rate_ < settings_.slow_below * best) {
    ++slow_windows_;
    if (slow_windows_ >= kSlowWindows && !slow_told_) {
      slow_told_ = true;
      slow = Slow{step_rate_, best, std::nullopt};
      std::vector<uint32_t> sorted = waiting_looks_;
      std::sort(sorted.begin(), sorted.end());
      const double gap = static_cast<double>(sorted[sorted.size() / 2]) - static_cast<double>(sorted[0]);
      if (sorted.size() > 1 && window_looks_ > 0 && gap / window_looks_ >= kStragglerGap) {
        const auto least = std::min_element(waiting_looks_.begin(), waiting_looks_.end());
        slow->straggler = static_cast<uint32_t>(least - waiting_looks_.begin());
      }
    }
  } else {
    slow_windows_ = 0;
    slow_told_ = false;
  }
  const Point last = window_.back();
  window_.clear();
  window_.push_back(last);
  std::fill(waiting_looks_.begin(), waiting_looks_.end(), 0);
  window_looks_ = 0;
  return slow;
}

}  // namespace pitcrew::launcher
