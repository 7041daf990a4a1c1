#include "launcher/progress/judge.hpp"

#include <cmath>

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

using page::Phase;

// A pod's ranks and the judge that looks at them twice a second.
class Pod {
 public:
  explicit Pod(size_t ranks, JudgeSettings settings = {}) : settings_(settings), ranks_(ranks) { restart(); }

  // The next epoch: new lines, a new judge, the same rhythm.
  void restart() {
    for (RankView& rank : ranks_) rank = RankView{};
    judge_.emplace(settings_, ranks_.size(), now_, rhythm_);
  }

  page::LineCopy& line(size_t rank) { return ranks_[rank].line; }
  RankView& rank(size_t rank) { return ranks_[rank]; }
  Judge& judge() { return *judge_; }
  Rhythm& rhythm() { return rhythm_; }

  Pod& phase(size_t rank, Phase phase) {
    line(rank).phase = phase;
    ++line(rank).updates;
    return *this;
  }
  Pod& all(Phase p) {
    for (size_t i = 0; i < ranks_.size(); ++i) phase(i, p);
    return *this;
  }
  Pod& collective(size_t rank, uint64_t sequence, bool inside) {
    line(rank).collective = sequence;
    line(rank).in_collective = inside;
    ++line(rank).updates;
    return *this;
  }
  void step(size_t rank) {
    ++line(rank).step.value;
    line(rank).samples += 8;
    ++line(rank).updates;
  }
  // All ranks do `count` steps of the given length.
  Pod& train(int count, Duration each) {
    for (int i = 0; i < count; ++i) {
      pass(each);
      for (size_t r = 0; r < ranks_.size(); ++r) step(r);
    }
    return *this;
  }
  // Nobody does anything; the judge looks on. Stops at the first stall.
  Pod& pass(Duration time) {
    const Instant end = now_ + time;
    while (next_look_ <= end) {
      now_ = next_look_;
      next_look_ += settings_.interval;
      look();
      if (stall) return *this;
    }
    now_ = end;
    return *this;
  }
  // As pass(), while `rank` shows that it is alive.
  Pod& beating(size_t rank, Duration time) {
    for (const Instant end = now_ + time; now_ < end && !stall;) {
      ++line(rank).updates;
      pass(seconds(1));
    }
    return *this;
  }
  Pod& freeze(Duration time) {
    now_ += time;
    next_look_ = now_ + settings_.interval;
    look();
    return *this;
  }
  void look() {
    const Verdict verdict = judge_->look(now_, ranks_);
    if (verdict.stall) {
      stall = verdict.stall;
      ++stalls;
    }
    if (verdict.slow) {
      slow = verdict.slow;
      ++slows;
    }
  }
  Pod& learned(Duration step = seconds(1)) { return all(Phase::kTraining).train(40, step); }

  std::optional<Stall> stall;
  std::optional<Slow> slow;
  int stalls = 0, slows = 0;

 private:
  JudgeSettings settings_;
  Instant now_ = Instant(seconds(1'700'000'000));
  Instant next_look_ = now_;
  Rhythm rhythm_;
  std::vector<RankView> ranks_;
  std::optional<Judge> judge_;
};

double seconds_of(const std::optional<Stall>& stall) { return stall ? to_seconds(stall->without_progress) : -1; }

TEST(Judge, a_job_that_steps_is_never_judged_a_hang) {
  Pod pod(4);
  pod.learned().train(2000, seconds(1));
  EXPECT_EQ(pod.stalls, 0);
}

TEST(Judge, a_hang_of_a_learned_job_is_found_soon_after_the_floor) {
  Pod pod(2);
  pod.learned(milliseconds(500)).pass(minutes(5));
  ASSERT_TRUE(pod.stall);
  EXPECT_GT(seconds_of(pod.stall), 10);
  EXPECT_LE(seconds_of(pod.stall), 11);
  EXPECT_EQ(pod.stall->phase, Phase::kTraining);
  EXPECT_EQ(pod.stall->step, Step(40));
}

TEST(Judge, short_steps_are_learned_by_their_number_not_by_the_looks_that_saw_them) {
  Pod pod(2);
  pod.all(Phase::kTraining).train(200, milliseconds(10)).pass(minutes(5));
  ASSERT_TRUE(pod.stall);
  EXPECT_LE(seconds_of(pod.stall), 11);
}

TEST(Judge, two_looks_at_short_steps_are_enough) {
  Pod pod(2);
  pod.all(Phase::kTraining).train(70, milliseconds(10)).pass(minutes(5));
  ASSERT_TRUE(pod.stall);
  EXPECT_LE(seconds_of(pod.stall), 11);
}

TEST(Judge, epochs_too_short_for_a_step_between_looks_teach_nothing) {
  Pod pod(2);
  for (int epoch = 0; epoch < 20; ++epoch) {
    pod.all(Phase::kTraining).train(1, seconds(1));
    pod.restart();
  }
  EXPECT_FALSE(pod.rhythm().step_limit(seconds(10)));
}

TEST(Judge, the_limit_follows_the_jobs_own_steps) {
  struct Row {
    Duration step;
    double at_least, at_most;
  };
  for (const Row& row :
       {Row{milliseconds(200), 10, 11}, Row{seconds(1), 10, 11}, Row{seconds(4), 20, 21}, Row{seconds(30), 150, 151}}) {
    Pod pod(2);
    pod.learned(row.step).pass(minutes(30));
    EXPECT_GT(seconds_of(pod.stall), row.at_least) << to_string(row.step);
    EXPECT_LE(seconds_of(pod.stall), row.at_most) << to_string(row.step);
  }
}

TEST(Judge, one_step_that_was_long_widens_the_limit_to_twice_its_length) {
  Pod pod(1);
  pod.learned().train(1, seconds(9)).train(3, seconds(1)).pass(minutes(5));
  EXPECT_GT(seconds_of(pod.stall), 18);
  EXPECT_LE(seconds_of(pod.stall), 46);
}

TEST(Judge, ranks_that_show_their_collectives_are_judged_by_them_inside_long_steps) {
  Pod pod(1);
  pod.all(Phase::kTraining);
  uint64_t sequence = 0;
  for (int step = 0; step < 40; ++step) {
    for (int i = 0; i < 60; ++i) {
      ++sequence;
      pod.collective(0, sequence, true).pass(milliseconds(500)).collective(0, sequence, false).pass(milliseconds(500));
    }
    pod.step(0);
  }
  ASSERT_EQ(pod.stalls, 0);
  pod.pass(minutes(10));
  EXPECT_LE(seconds_of(pod.stall), 11);  // steps of 60 s alone would have allowed 300 s
}

TEST(Judge, before_anything_is_learned_start_within_is_the_limit) {
  for (const Phase phase :
       {Phase::kStarting, Phase::kRestoring, Phase::kFirstStep, Phase::kTraining, Phase::kEvaluating, Phase::kSaving}) {
    Pod pod(2, {.start_within = minutes(3)});
    pod.all(phase).pass(minutes(2) + seconds(59));
    EXPECT_FALSE(pod.stall) << page::to_string(phase);
    pod.pass(seconds(3));
    ASSERT_TRUE(pod.stall) << page::to_string(phase);
    EXPECT_EQ(pod.stall->phase, phase);
    EXPECT_EQ(pod.stall->limit, minutes(3));
  }
}

TEST(Judge, each_phase_before_training_has_start_within_for_itself) {
  Pod pod(1, {.start_within = minutes(3)});
  pod.all(Phase::kStarting)
      .pass(minutes(2))
      .all(Phase::kRestoring)
      .pass(minutes(2))
      .all(Phase::kFirstStep)
      .pass(minutes(2));
  pod.all(Phase::kTraining).pass(minutes(2));
  EXPECT_FALSE(pod.stall);
}

TEST(Judge, a_given_limit_replaces_the_learned_one_in_training_alone) {
  Pod pod(1, {.stall_after = minutes(2)});
  pod.learned().pass(seconds(119));
  EXPECT_FALSE(pod.stall);
  pod.pass(seconds(3));
  EXPECT_GT(seconds_of(pod.stall), 120);

  Pod saving(1, {.stall_after = seconds(5)});
  saving.learned(milliseconds(500)).all(Phase::kSaving).pass(minutes(9));
  EXPECT_FALSE(saving.stall);
}

TEST(Judge, a_program_without_the_page_is_never_judged) {
  Pod pod(4);
  pod.pass(hours(5));
  EXPECT_FALSE(pod.stall);
}

TEST(Judge, ranks_that_wrote_are_judged_beside_ranks_that_never_did) {
  Pod pod(2);
  pod.phase(0, Phase::kTraining);
  for (int i = 0; i < 40; ++i) {
    pod.pass(seconds(1));
    pod.step(0);
  }
  pod.pass(minutes(1));
  ASSERT_TRUE(pod.stall);
  EXPECT_EQ(pod.stall->local_rank, 0u);
}

TEST(Judge, restoring_evaluating_and_saving_live_on_while_their_line_moves) {
  for (const Phase phase : {Phase::kRestoring, Phase::kEvaluating, Phase::kSaving}) {
    Pod pod(1, {.start_within = minutes(1)});
    pod.all(phase).beating(0, minutes(30));
    EXPECT_FALSE(pod.stall) << page::to_string(phase);
    pod.pass(minutes(2));
    EXPECT_TRUE(pod.stall) << page::to_string(phase);
  }
}

TEST(Judge, a_line_that_moves_without_steps_is_no_progress_in_training) {
  Pod pod(1);
  pod.learned().beating(0, minutes(5));
  EXPECT_LE(seconds_of(pod.stall), 12);
}

TEST(Judge, evaluation_learns_a_limit_of_its_own) {
  Pod pod(1);
  pod.learned();
  for (int i = 0; i < 3; ++i) pod.all(Phase::kEvaluating).pass(seconds(40)).all(Phase::kTraining).train(5, seconds(1));
  ASSERT_FALSE(pod.stall);
  pod.all(Phase::kEvaluating).pass(seconds(159));
  EXPECT_FALSE(pod.stall);
  pod.pass(seconds(3));
  ASSERT_TRUE(pod.stall);
  EXPECT_EQ(pod.stall->phase, Phase::kEvaluating);
}

TEST(Judge, the_return_from_an_evaluation_is_not_learned_as_a_step) {
  Pod pod(1);
  pod.learned();
  for (int i = 0; i < 5; ++i)
    pod.all(Phase::kEvaluating).beating(0, minutes(3)).all(Phase::kTraining).train(4, seconds(1));
  pod.pass(minutes(5));
  EXPECT_LE(seconds_of(pod.stall), 11);
}

TEST(Judge, lost_peer_and_done_are_exempt_for_the_whole_pod_and_the_rank) {
  Pod lost(2);
  lost.learned().phase(0, Phase::kLostPeer).collective(1, 7, true).pass(hours(1));
  EXPECT_FALSE(lost.stall);
  Pod done(2);
  done.learned().all(Phase::kDone).pass(hours(1));
  EXPECT_FALSE(done.stall);
}

TEST(Judge, what_hangs_because_a_rank_ended_is_not_a_second_cause) {
  Pod pod(2);
  pod.learned();
  pod.rank(1).alive = false;
  pod.collective(0, 9, true).pass(hours(1));
  EXPECT_FALSE(pod.stall);
}

TEST(Judge, a_rank_that_ended_after_it_was_done_excuses_nobody) {
  Pod pod(2);
  pod.learned().phase(1, Phase::kDone);
  pod.rank(1).alive = false;
  pod.pass(minutes(1));
  EXPECT_TRUE(pod.stall);
}

TEST(Judge, a_rank_that_waits_for_the_reader_of_its_output_does_not_hang) {
  Pod pod(2);
  pod.learned();
  pod.rank(1).output_blocked = true;
  pod.collective(0, 5, true).pass(hours(1));
  EXPECT_FALSE(pod.stall);
  EXPECT_EQ(pod.judge().output_blocked(), hours(1));
  pod.rank(1).output_blocked = false;
  pod.pass(seconds(9));
  EXPECT_FALSE(pod.stall) << "the time of waiting must not count afterwards";
  pod.pass(seconds(5));
  EXPECT_TRUE(pod.stall);
}

TEST(Judge, ranks_that_wait_for_one_that_saves_are_excused_as_long_as_it_is) {
  Pod pod(2);
  pod.learned().phase(0, Phase::kSaving).collective(1, 12, true).pass(minutes(8));
  EXPECT_FALSE(pod.stall);
  pod.phase(0, Phase::kTraining).collective(1, 12, false).train(3, seconds(1));
  EXPECT_FALSE(pod.stall);
}

TEST(Judge, a_rank_that_computes_is_not_excused_by_one_that_saves) {
  Pod pod(2);
  pod.learned().phase(0, Phase::kSaving).pass(minutes(1));
  ASSERT_TRUE(pod.stall);
  EXPECT_EQ(pod.stall->local_rank, 1u);
}

TEST(Judge, the_saver_itself_is_judged_by_its_own_limit) {
  Pod pod(2, {.start_within = minutes(2)});
  pod.learned().phase(0, Phase::kSaving).collective(1, 12, true).pass(minutes(3));
  ASSERT_TRUE(pod.stall);
  EXPECT_EQ(pod.stall->local_rank, 0u);
  EXPECT_EQ(pod.stall->phase, Phase::kSaving);
}

TEST(Judge, time_in_which_this_process_did_not_run_is_not_the_ranks) {
  Pod pod(2);
  pod.learned().freeze(minutes(30));
  EXPECT_FALSE(pod.stall);
  pod.train(10, seconds(1));
  EXPECT_FALSE(pod.stall);
}

TEST(Judge, a_stall_is_told_once_until_something_moves) {
  Pod pod(2);
  pod.learned().pass(minutes(5));
  ASSERT_EQ(pod.stalls, 1);
  for (int i = 0; i < 10; ++i) {
    pod.stall.reset();
    pod.pass(minutes(10));
  }
  EXPECT_EQ(pod.stalls, 1);
}

TEST(Judge, a_pause_that_ended_by_itself_is_learned_and_not_told_again) {
  Pod pod(1);
  pod.learned().pass(seconds(12));
  ASSERT_EQ(pod.stalls, 1);
  pod.stall.reset();
  pod.train(1, seconds(8));  // twenty seconds in all
  pod.train(20, seconds(1)).train(1, seconds(20)).train(5, seconds(1));
  EXPECT_EQ(pod.stalls, 1);
}

TEST(Judge, the_second_epoch_is_judged_by_what_the_first_learned) {
  Pod pod(2);
  pod.learned();
  pod.restart();
  pod.all(Phase::kTraining).train(3, seconds(1)).pass(minutes(5));
  EXPECT_LE(seconds_of(pod.stall), 11);
}

TEST(Judge, the_same_place_is_not_taken_for_a_hang_a_second_time_within_start_within) {
  Pod pod(1, {.start_within = minutes(10)});
  pod.learned().pass(minutes(1));
  ASSERT_TRUE(pod.stall);
  pod.stall.reset();
  pod.restart();
  pod.all(Phase::kTraining).train(40, seconds(1)).pass(minutes(9));
  EXPECT_FALSE(pod.stall) << "slow but alive: restarting would lead back here for ever";
  pod.pass(minutes(2));
  EXPECT_TRUE(pod.stall) << "a real hang is still found";
}

TEST(Judge, another_place_is_judged_as_before) {
  Pod pod(1);
  pod.learned().pass(minutes(1));
  pod.stall.reset();
  pod.restart();
  pod.all(Phase::kTraining).train(45, seconds(1)).pass(minutes(1));
  EXPECT_LE(seconds_of(pod.stall), 11);
}

TEST(Judge, a_third_time_at_the_same_place_gets_four_times_the_second) {
  Pod pod(1, {.start_within = minutes(1)});
  pod.learned();
  std::vector<double> found;
  for (int i = 0; i < 3; ++i) {
    pod.stall.reset();
    pod.pass(hours(1));
    found.push_back(seconds_of(pod.stall));
    pod.restart();
    pod.stall.reset();
    pod.all(Phase::kTraining).train(40, seconds(1));
  }
  EXPECT_LE(found[0], 11);
  EXPECT_NEAR(found[1], 60, 1);
  EXPECT_NEAR(found[2], 240, 1);
}

struct CulpritRow {
  const char* what;
  struct Line {
    Phase phase;
    uint64_t collective;
    bool inside;
    bool alive = true;
  };
  std::vector<Line> ranks;
  std::optional<uint32_t> culprit;
};

TEST(Culprit, is_told_from_those_who_wait_for_it) {
  constexpr Phase T = Phase::kTraining;
  const std::vector<CulpritRow> rows{
      {"one is in no collective", {{T, 9, true}, {T, 8, false}, {T, 9, true}}, 1},
      {"one is in no collective, though it has left the same one", {{T, 9, true}, {T, 9, false}}, 1},
      {"of two outside, the one further behind", {{T, 7, false}, {T, 6, false}, {T, 9, true}}, 1},
      {"all inside, one in an earlier collective", {{T, 9, true}, {T, 9, true}, {T, 8, true}}, 2},
      {"all in the same collective: it is on another pod", {{T, 9, true}, {T, 9, true}}, std::nullopt},
      {"one rank, waiting", {{T, 9, true}}, std::nullopt},
      {"one rank, computing", {{T, 9, false}}, 0},
      {"all compute at the same place: none is waited for", {{T, 9, false}, {T, 9, false}}, std::nullopt},
      {"the dead are not looked at", {{T, 3, false, false}, {T, 9, true}, {T, 8, true}}, 2},
      {"who is done is not looked at", {{Phase::kDone, 1, false}, {T, 9, true}, {T, 8, true}}, 2},
      {"who lost its peer is not looked at", {{Phase::kLostPeer, 1, false}, {T, 9, true}}, std::nullopt},
      {"nobody", {}, std::nullopt},
  };
  for (const CulpritRow& row : rows) {
    std::vector<RankView> ranks;
    for (const auto& line : row.ranks) {
      RankView& rank = ranks.emplace_back();
      rank.line.updates = 1;
      rank.line.phase = line.phase;
      rank.line.collective = line.collective;
      rank.line.in_collective = line.inside;
      rank.alive = line.alive;
    }
    EXPECT_EQ(find_culprit(ranks), row.culprit) << row.what;
  }
}

TEST(Culprit, is_named_in_the_verdict_and_the_waiting_are_not) {
  Pod pod(4);
  pod.learned();
  for (size_t i = 0; i < 4; ++i) pod.collective(i, i == 2 ? 40 : 41, i != 2);
  pod.pass(minutes(1));
  ASSERT_TRUE(pod.stall);
  EXPECT_EQ(pod.stall->culprit, 2u);
}

TEST(Slow, a_job_at_half_its_best_rate_is_told_once) {
  Pod pod(2, {.slow_below = 0.7});
  pod.all(Phase::kTraining).train(100, milliseconds(500));
  EXPECT_EQ(pod.slows, 0);
  pod.train(200, seconds(1));
  ASSERT_EQ(pod.slows, 1);
  EXPECT_NEAR(pod.slow->best, 2, 0.2);
  EXPECT_NEAR(pod.slow->rate, 1, 0.1);
  EXPECT_EQ(pod.stalls, 0);
  pod.train(100, milliseconds(500)).train(100, seconds(1));
  EXPECT_EQ(pod.slows, 2) << "it had recovered in between";
}

TEST(Slow, a_job_a_little_slower_is_not_told) {
  Pod pod(2, {.slow_below = 0.7});
  pod.all(Phase::kTraining).train(50, seconds(1)).train(200, milliseconds(1300));
  EXPECT_EQ(pod.slows, 0);
}

TEST(Slow, a_short_dip_is_not_told) {
  Pod pod(2, {.slow_below = 0.7});
  pod.all(Phase::kTraining).train(100, milliseconds(500)).train(12, seconds(2)).train(100, milliseconds(500));
  EXPECT_EQ(pod.slows, 0);
}

TEST(Slow, is_off_where_the_share_is_zero) {
  Pod pod(2, {.slow_below = 0});
  pod.all(Phase::kTraining).train(100, milliseconds(500)).train(100, seconds(3));
  EXPECT_EQ(pod.slows, 0);
}

TEST(Slow, the_rank_that_never_waits_is_the_straggler) {
  Pod pod(3, {.slow_below = 0.7});
  pod.all(Phase::kTraining).train(100, milliseconds(500));
  for (uint64_t i = 1; i < 60; ++i) {
    for (size_t r : {size_t{0}, size_t{2}}) pod.collective(r, i, true);
    pod.pass(milliseconds(1500));
    for (size_t r = 0; r < 3; ++r) pod.collective(r, i, false);
    pod.train(1, milliseconds(500));
  }
  ASSERT_EQ(pod.slows, 1);
  EXPECT_EQ(pod.slow->straggler, 1u);
}

TEST(Slow, evaluation_is_not_slowness) {
  Pod pod(1, {.slow_below = 0.7});
  pod.all(Phase::kTraining).train(100, milliseconds(500));
  for (int i = 0; i < 10; ++i)
    pod.all(Phase::kEvaluating).pass(seconds(30)).all(Phase::kTraining).train(30, milliseconds(500));
  EXPECT_EQ(pod.slows, 0);
}

TEST(Rhythm, survives_being_saved_and_loaded) {
  Pod pod(1);
  pod.learned(seconds(3)).pass(minutes(1));
  ASSERT_TRUE(pod.stall);
  const Rhythm copy = Rhythm::load(pod.rhythm().save());
  EXPECT_EQ(copy.save(), pod.rhythm().save());
  EXPECT_EQ(copy.step_limit(seconds(10)), pod.rhythm().step_limit(seconds(10)));
  EXPECT_NE(copy.find_judged(Step(40), Phase::kTraining), nullptr);
}

TEST(Rhythm, what_is_not_a_rhythm_loads_as_an_empty_one) {
  for (const char* text : {"", "{}", "[]", "null", "{\"steps\":[1,2],\"seen\":1}", "\xff", "{\"steps\":\"x\"}"}) {
    EXPECT_FALSE(Rhythm::load(text).step_limit(seconds(10))) << text;
  }
}

TEST(Rhythm, a_hundred_judged_stalls_stay_bounded) {
  Rhythm rhythm;
  for (uint64_t i = 0; i < 100; ++i) rhythm.judged({Step(i), Phase::kTraining, seconds(10)});
  EXPECT_EQ(rhythm.find_judged(Step(0), Phase::kTraining), nullptr);
  EXPECT_NE(rhythm.find_judged(Step(99), Phase::kTraining), nullptr);
  EXPECT_LT(rhythm.save().size(), 2000u);
}

}  // namespace
}  // namespace pitcrew::launcher
