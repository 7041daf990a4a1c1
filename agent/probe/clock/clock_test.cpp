#include "agent/probe/clock/clock.hpp"

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::clock {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

TEST(Clock, finds_steps_by_the_clock_that_never_jumps) {
  Sample sample{seconds(1'700'000'000), seconds(100), std::nullopt};
  ClockProbe probe([&]() -> Result<Sample> { return sample; });
  EXPECT_EQ(values_of(probe.look(kNow), "clock"), "") << "the first look has nothing to compare with";
  sample.wall += seconds(30);
  sample.steady += seconds(30);
  EXPECT_EQ(values_of(probe.look(kNow), "clock"), "step_seconds=0");
  sample.wall -= seconds(90);
  sample.steady += seconds(30);
  const auto seen = probe.look(kNow);
  EXPECT_EQ(values_of(seen, "clock"), "step_seconds=120");
  EXPECT_EQ((*seen)[0].text, "the clock was set back by 2m");
}

TEST(Clock, says_whether_it_is_kept_and_how_far_off_it_is) {
  ClockProbe probe([]() -> Result<Sample> { return Sample{Duration(0), Duration(0), Discipline{true, -0.25, 0.5}}; });
  EXPECT_EQ(values_of(probe.look(kNow), "clock"), "max_error_seconds=0.5 offset_seconds=0.25 synchronized=1");
}

TEST(Clock, the_kernels_own_two_clocks_agree_or_are_told_apart) {
  ClockProbe probe;
  ASSERT_TRUE(probe.look(kNow));
  const auto seen = probe.look(kNow);
  ASSERT_TRUE(seen);
  EXPECT_TRUE((*seen)[0].number("step_seconds").has_value());
}

TEST(Clock, a_clock_that_cannot_be_asked_is_a_broken_probe) {
  ClockProbe probe([]() -> Result<Sample> { return Error(Code::kUnavailable, "no clock"); });
  EXPECT_FALSE(probe.look(kNow));
}

}  // namespace
}  // namespace pitcrew::agent::clock
