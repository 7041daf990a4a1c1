#include "launcher/memory/rate_cap.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

constexpr uint64_t kMiB = 1 << 20;
Instant at(double seconds) { return Instant(from_seconds(1000 + seconds)); }

// Sends `pieces` of 1 MiB one after another over a link that takes `link` seconds for each; when the last is sent.
double send(RateCap& cap, int pieces, double link, double from = 0) {
  double now = from;
  for (int i = 0; i < pieces; ++i) now += to_seconds(cap.reserve(kMiB, at(now))) + link;
  return now - from;
}

TEST(RateCap, without_one_nobody_waits) {
  RateCap cap(0);
  EXPECT_EQ(cap.reserve(1000 * kMiB, at(0)), Duration(0));
  EXPECT_EQ(cap.reserve(1000 * kMiB, at(0)), Duration(0));
}

TEST(RateCap, a_long_copy_takes_its_bytes_over_the_rate) {
  RateCap cap(100 * kMiB);
  // 1,000 MiB at 100 MiB/s, less the quarter of a second that the bucket holds.
  EXPECT_NEAR(send(cap, 1000, 0.0001), 9.75, 0.05);
}

TEST(RateCap, a_slower_link_is_not_slowed_down_further) {
  RateCap cap(100 * kMiB);
  EXPECT_NEAR(send(cap, 100, 0.02), 2.0, 1e-6);
}

TEST(RateCap, several_senders_share_it) {
  RateCap cap(100 * kMiB);
  double last = 0;
  double next[4] = {};
  for (int i = 0; i < 250; ++i) {
    for (double& now : next) {
      now += to_seconds(cap.reserve(kMiB, at(now)));
      last = std::max(last, now);
    }
  }
  EXPECT_NEAR(last, 9.75, 0.1);
}

TEST(RateCap, a_pause_saves_up_no_more_than_the_bucket_holds) {
  RateCap cap(100 * kMiB);
  send(cap, 100, 0);
  EXPECT_NEAR(send(cap, 100, 0, 60), 0.75, 0.02);
}

}  // namespace
}  // namespace pitcrew::launcher
