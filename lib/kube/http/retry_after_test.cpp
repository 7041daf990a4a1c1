#include "lib/kube/http/retry_after.hpp"

#include <gtest/gtest.h>

namespace pitcrew::kube {
namespace {

TEST(RetryAfter, is_seconds_or_a_date_and_bounded) {
  const Instant now{seconds(784111777)};  // Sun, 06 Nov 1994 08:49:37 GMT
  EXPECT_EQ(parse_retry_after("7", now), Duration(seconds(7)));
  EXPECT_EQ(parse_retry_after("0", now), Duration(0));
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:40 GMT", now), Duration(seconds(3)));
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:30 GMT", now), Duration(0));
  EXPECT_EQ(parse_retry_after("99999999999999", now), Duration(hours(1)));
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 2044 08:49:30 GMT", now), Duration(hours(1)));
  for (const char* text : {"", "soon", "-1", "1.5", "Sun, 06 Nov 1994"})
    EXPECT_EQ(parse_retry_after(text, now), std::nullopt);
}

}  // namespace
}  // namespace pitcrew::kube
