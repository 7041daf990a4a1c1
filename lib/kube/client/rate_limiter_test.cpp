#include "lib/kube/client/rate_limiter.hpp"

#include <gtest/gtest.h>

namespace pitcrew::kube {
namespace {

const Instant kStart(seconds(1000));

TEST(RateLimiter, a_burst_is_free_and_what_comes_after_waits_its_turn) {
  RateLimiter limiter(10, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.reserve(kStart), Duration(0));
  EXPECT_EQ(limiter.reserve(kStart), milliseconds(100));
  EXPECT_EQ(limiter.reserve(kStart), milliseconds(200));
  EXPECT_FALSE(limiter.try_take(kStart + milliseconds(200)));
  EXPECT_TRUE(limiter.try_take(kStart + milliseconds(300)));
}

TEST(RateLimiter, too_much_takes_what_was_saved_up_and_halves_the_rate_once_a_second) {
  RateLimiter limiter(100, 50);
  limiter.too_much(kStart);
  EXPECT_EQ(limiter.reserve(kStart), milliseconds(20)) << "fifty a second now";
  limiter.too_much(kStart + milliseconds(10));
  EXPECT_NEAR(limiter.rate(), 50, 0.1) << "answers to one wave of requests are one sign";
  limiter.too_much(kStart + seconds(1));
  EXPECT_NEAR(limiter.rate(), 27.5, 0.1);
}

TEST(RateLimiter, the_rate_never_falls_below_a_twentieth_and_grows_back_in_twenty_seconds) {
  RateLimiter limiter(100, 50);
  for (int i = 0; i < 10; ++i) limiter.too_much(kStart + seconds(i));
  EXPECT_GE(limiter.rate(), 5);
  EXPECT_LT(limiter.rate(), 12);
  limiter.try_take(kStart + seconds(40));
  EXPECT_EQ(limiter.rate(), 100);
}

}  // namespace
}  // namespace pitcrew::kube
