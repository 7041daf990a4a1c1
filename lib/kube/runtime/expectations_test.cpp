#include "lib/kube/runtime/expectations.hpp"

#include <gtest/gtest.h>

namespace pitcrew::kube {
namespace {

const ObjectKey kJob{"team", "job"};

TEST(ExpectationsTest, bug_05_nothing_is_computed_while_the_cache_has_not_shown_a_create) {
  ManualClock clock;
  Expectations expectations(clock);
  EXPECT_EQ(expectations.state(kJob), Expectations::State::kSatisfied);
  expectations.expect(kJob, "job-0");
  expectations.expect(kJob, "job-1");
  expectations.observed(kJob, "job-0");
  EXPECT_EQ(expectations.state(kJob), Expectations::State::kPending);
  expectations.observed(kJob, "job-1");
  EXPECT_EQ(expectations.state(kJob), Expectations::State::kSatisfied);
  EXPECT_EQ(expectations.owners(), 0u);
}

TEST(ExpectationsTest, what_is_never_shown_expires_and_wants_a_live_list) {
  ManualClock clock;
  Expectations expectations(clock, minutes(5));
  expectations.expect(kJob, "job-0");
  clock.advance(minutes(5));
  EXPECT_EQ(expectations.state(kJob), Expectations::State::kExpired);
  expectations.forget(kJob);
  EXPECT_EQ(expectations.state(kJob), Expectations::State::kSatisfied);
}

TEST(ExpectationsTest, what_nobody_expects_is_no_matter) {
  ManualClock clock;
  Expectations expectations(clock);
  expectations.observed(kJob, "other");
  EXPECT_EQ(expectations.state(kJob), Expectations::State::kSatisfied);
}

TEST(WrittenVersionsTest, a_cache_below_the_own_write_is_stale) {
  WrittenVersions written;
  EXPECT_TRUE(written.seen(kJob, 0));
  written.wrote(kJob, "41");
  written.wrote(kJob, "40");
  EXPECT_FALSE(written.seen(kJob, 40));
  EXPECT_TRUE(written.seen(kJob, 41));
  EXPECT_EQ(written.keys(), 0u);
}

}  // namespace
}  // namespace pitcrew::kube
