#include "launcher/memory/silence.hpp"

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

constexpr Slot kA{1}, kB{2};
Instant at(double seconds) { return Instant(from_seconds(1000 + seconds)); }

TEST(Silence, is_told_after_four_seconds_again_while_it_lasts_and_when_it_is_over) {
  Silence silence({kA, kB}, at(0));
  std::vector<std::pair<double, Silence::Report>> told;
  for (double t = 1; t <= 20; t += 1) {
    silence.answered(kB, at(t));
    if (t > 15) silence.answered(kA, at(t));
    for (const auto& report : silence.look(at(t))) told.emplace_back(t, report);
  }
  const std::vector<std::pair<double, Silence::Report>> expected{
      {4, {kA, seconds(4)}}, {9, {kA, seconds(9)}}, {14, {kA, seconds(14)}}, {16, {kA, Duration(0)}}};
  EXPECT_EQ(told, expected);
}

TEST(Silence, short_ones_are_nothing) {
  Silence silence({kA}, at(0));
  for (double t = 1; t <= 30; t += 1) {
    if (static_cast<int>(t) % 3 == 0) silence.answered(kA, at(t));
    EXPECT_TRUE(silence.look(at(t)).empty()) << t;
  }
}

TEST(Silence, time_in_which_this_process_did_not_run_is_nobodys) {
  Silence silence({kA}, at(0));
  EXPECT_TRUE(silence.look(at(1)).empty());
  EXPECT_TRUE(silence.look(at(60)).empty());
  EXPECT_TRUE(silence.look(at(62)).empty());
  EXPECT_FALSE(silence.look(at(64)).empty());
}

TEST(Silence, an_answer_of_somebody_else_is_passed_over) {
  Silence silence({kA}, at(0));
  silence.answered(Slot(9), at(1));
  EXPECT_TRUE(silence.look(at(2)).empty());
}

}  // namespace
}  // namespace pitcrew::launcher
