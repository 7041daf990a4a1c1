#include "trainer/checkpoint/claims.hpp"

#include <gmock/gmock.h>

#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

class ClaimsTest : public ::testing::Test {
 protected:
  ClaimsTest() : storage(*open_storage(posix_file_system(), folder.at("checkpoints"))) {}
  std::unique_ptr<Claims> claims() {
    return std::make_unique<Claims>(
        *storage, clock,
        [this](Duration time) {
          clock.advance(time);
          waited += time;
          if (meanwhile) meanwhile();
        },
        Claims::Settings{});
  }
  static JobIdentity job(const std::string& uid) { return {.uid = uid, .ns = "team", .name = uid}; }

  testing::TemporaryFolder folder;
  std::unique_ptr<Storage> storage;
  ManualClock clock;
  Duration waited{0};
  std::function<void()> meanwhile;
};

TEST_F(ClaimsTest, every_epoch_takes_the_next_number_without_waiting) {
  EXPECT_EQ(*claims()->take(job("a"), EpochNumber(1)), 1u);
  EXPECT_EQ(*claims()->take(job("a"), EpochNumber(2)), 2u);
  EXPECT_EQ(waited, Duration(0));
}

TEST_F(ClaimsTest, an_epoch_that_is_over_is_refused) {
  ASSERT_TRUE(claims()->take(job("a"), EpochNumber(5)));
  const auto late = claims()->take(job("a"), EpochNumber(4));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kConflict);
  EXPECT_THAT(late.error().message, ::testing::HasSubstr("epoch 4 is over"));
}

TEST_F(ClaimsTest, another_jobs_living_claim_is_a_clear_error) {
  const auto first = claims();
  ASSERT_TRUE(first->take(job("a"), EpochNumber(1)));
  int seconds_passed = 0;
  meanwhile = [&] {
    if (++seconds_passed % 10 != 0) return;
    EXPECT_TRUE(first->beat());
  };
  const auto second = claims()->take(job("b"), EpochNumber(1));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kConflict);
  EXPECT_THAT(second.error().message,
              ::testing::AllOf(::testing::HasSubstr("team/a"), ::testing::HasSubstr("another checkpoint.path")));
  EXPECT_TRUE(first->check());
}

TEST_F(ClaimsTest, a_claim_whose_beat_stands_still_for_thirty_seconds_is_taken_over) {
  const auto first = claims();
  ASSERT_TRUE(first->take(job("a"), EpochNumber(9)));
  EXPECT_EQ(*claims()->take(job("b"), EpochNumber(1)), 2u);
  EXPECT_EQ(waited, seconds(30));
  const Status late = first->check();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kConflict);
}

TEST_F(ClaimsTest, a_released_claim_is_taken_over_at_once) {
  const auto first = claims();
  ASSERT_TRUE(first->take(job("a"), EpochNumber(1)));
  ASSERT_TRUE(first->release());
  EXPECT_EQ(*claims()->take(job("b"), EpochNumber(1)), 2u);
  EXPECT_EQ(waited, Duration(0));
}

TEST_F(ClaimsTest, a_number_is_never_used_twice_even_where_claims_were_deleted) {
  ASSERT_TRUE(storage->replace("step-000000000009-c41/manifest.json", "{}"));
  EXPECT_EQ(*claims()->take(job("a"), EpochNumber(1)), 42u);
}

TEST_F(ClaimsTest, old_claims_are_removed_in_the_end) {
  for (uint64_t epoch = 1; epoch <= 50; ++epoch) ASSERT_TRUE(claims()->take(job("a"), EpochNumber(epoch)));
  const auto left = *storage->list("claims");
  EXPECT_LE(left.size(), 2 * 34u);
}

}  // namespace
}  // namespace pitcrew::trainer
