#include "trainer/checkpoint/save_interval.hpp"

#include <cmath>

#include <gtest/gtest.h>

namespace pitcrew::trainer {
namespace {

double in_seconds(Duration duration) { return to_seconds(duration); }

// Time lost to saves, and on average half an interval and a save to each failure.
double lost(double interval, double cost, double between) {
  return cost / (interval + cost) + (interval / 2 + cost) / between;
}

TEST(SaveInterval, is_near_youngs_where_saves_are_cheap) {
  EXPECT_NEAR(in_seconds(best_save_interval(seconds(1), minutes(24 * 60))), std::sqrt(2 * 1 * 86400.0), 1);
  EXPECT_EQ(best_save_interval(minutes(30), minutes(10)), minutes(10));
}

TEST(SaveInterval, nothing_shorter_or_longer_loses_less) {
  for (const double cost : {0.05, 1.0, 30.0}) {
    for (const double between : {3600.0, 86400.0, 1e6}) {
      const double best = in_seconds(best_save_interval(std::chrono::milliseconds(static_cast<int64_t>(1000 * cost)),
                                                        seconds(static_cast<int64_t>(between))));
      EXPECT_LT(lost(best, cost, between), lost(2 * best, cost, between));
      EXPECT_LT(lost(best, cost, between), lost(best / 2, cost, between));
    }
  }
}

TEST(SaveInterval, more_ranks_and_more_failures_mean_less_time_between_them) {
  const Duration one = time_between_failures(1, 0, seconds(0));
  EXPECT_NEAR(in_seconds(one) / 86400, 16384.0 * 54 / 419, 1);  // days
  EXPECT_NEAR(in_seconds(time_between_failures(512, 0, seconds(0))), in_seconds(one) / 512, 1);
  EXPECT_LT(time_between_failures(8, 5, minutes(60)), time_between_failures(8, 0, minutes(60)));
  // What was seen outweighs what was expected, in time.
  EXPECT_NEAR(in_seconds(time_between_failures(1 << 20, 99, minutes(60 * 24 * 100))) / 86400, 1, 0.01);
}

TEST(SaveSchedule, saves_soon_once_then_as_the_measured_cost_says) {
  const Instant start{};
  SaveSchedule schedule(1024, 0, seconds(0), start);
  EXPECT_FALSE(schedule.due(start + seconds(59)));
  EXPECT_TRUE(schedule.due(start + seconds(60)));
  schedule.begun(start + seconds(60));
  schedule.measured(std::chrono::milliseconds(50), seconds(4));
  const double expected = in_seconds(
      best_save_interval(std::chrono::milliseconds(50), time_between_failures(1024, 0, schedule.trained(start))));
  EXPECT_NEAR(in_seconds(schedule.interval(start)), expected, 1e-3);
  EXPECT_GT(expected, 60);
  EXPECT_FALSE(schedule.due(start + seconds(61)));
}

TEST(SaveSchedule, never_asks_for_a_save_while_the_last_may_still_be_under_way) {
  const Instant start{};
  SaveSchedule slow(100'000, 1000, seconds(0), start);
  slow.measured(std::chrono::milliseconds(10), minutes(90));
  EXPECT_EQ(slow.interval(start), minutes(180));
  SaveSchedule fast(100'000, 1'000'000, seconds(0), start);
  fast.measured(std::chrono::milliseconds(10), seconds(1));
  EXPECT_EQ(fast.interval(start), SaveSchedule::kShortest);
}

}  // namespace
}  // namespace pitcrew::trainer
