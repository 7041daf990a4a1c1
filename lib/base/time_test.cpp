#include "lib/base/time.hpp"

#include <gtest/gtest.h>

namespace pitcrew {
namespace {

TEST(Time, rfc3339_is_read_and_written_back) {
  for (const char* text : {"2026-03-01T02:14:07Z", "1999-12-31T23:59:59Z", "2024-02-29T00:00:00Z"}) {
    const auto parsed = parse_rfc3339(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(to_rfc3339(*parsed), text);
  }
  EXPECT_EQ(to_rfc3339(*parse_rfc3339("2026-03-01T03:14:07.123456789+01:00"), 6), "2026-03-01T02:14:07.123456Z");
}

TEST(Time, what_is_no_time_is_refused) {
  for (const char* text : {"", "2026-03-01", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-03-01T25:00:00Z",
                           "2026-03-01T00:00:00", "2026-03-01T00:00:00Zx"}) {
    EXPECT_FALSE(parse_rfc3339(text).ok()) << text;
  }
}

TEST(Time, durations_are_read_as_go_writes_them) {
  EXPECT_EQ(*parse_duration("10m"), minutes(10));
  EXPECT_EQ(*parse_duration("1h30m"), minutes(90));
  EXPECT_EQ(*parse_duration("250ms"), milliseconds(250));
  EXPECT_EQ(*parse_duration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*parse_duration("0"), Duration(0));
  for (const char* text : {"", "10", "m", "10x", "-5s", "1h 30m", ".s", "99999999999h"})
    EXPECT_FALSE(parse_duration(text).ok()) << text;
}

TEST(Time, durations_are_written_as_people_read_them) {
  EXPECT_EQ(to_string(minutes(90)), "1h30m");
  EXPECT_EQ(to_string(milliseconds(250)), "250ms");
  EXPECT_EQ(to_string(milliseconds(61500)), "1m1.5s");
  EXPECT_EQ(to_string(Duration(0)), "0s");
  for (const char* text : {"10m", "1h30m", "250ms", "1.5s", "72h"}) EXPECT_EQ(to_string(*parse_duration(text)), text);
}

}  // namespace
}  // namespace pitcrew
