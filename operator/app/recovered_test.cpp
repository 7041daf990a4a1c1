#include "operator/app/recovered.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

api::TrainingJobStatus with(api::Cause cause, bool trains_again) {
  api::TrainingJobStatus status;
  status.phase = api::Phase::kRecovering;
  api::Recovery recovery;
  recovery.cause = cause;
  recovery.node = "b";
  recovery.happened = Instant(seconds(10));
  recovery.epoch = 2;
  if (trains_again) recovery.first_step = Instant(seconds(14));
  status.recoveries = {recovery};
  return status;
}

TEST(RecoveredSince, counts_each_recovery_once_when_it_is_over) {
  const auto begun = with(api::Cause::kRankCrash, false), over = with(api::Cause::kRankCrash, true);
  EXPECT_TRUE(recovered_since({}, begun).empty());
  EXPECT_EQ(recovered_since(begun, over).size(), 1u);
  EXPECT_TRUE(recovered_since(over, over).empty());
}

TEST(RecoveredSince, an_unknown_cause_waits_until_its_step_is_computed_again) {
  const auto begun = with(api::Cause::kUnknown, false);
  auto trains = with(api::Cause::kUnknown, true);
  trains.epoch.replay.emplace();
  trains.epoch.replay->node = "b";
  EXPECT_TRUE(recovered_since(begun, trains).empty());
  const auto known = with(api::Cause::kGpuFault, true);
  ASSERT_EQ(recovered_since(trains, known).size(), 1u);
  EXPECT_EQ(recovered_since(trains, known)[0].cause, api::Cause::kGpuFault);
  EXPECT_TRUE(recovered_since(known, known).empty());
  // The other node gave the same bits: it stays unknown, and is counted.
  const auto passed = with(api::Cause::kUnknown, true);
  EXPECT_EQ(recovered_since(trains, passed).size(), 1u);
}

TEST(RecoveredSince, nobody_computes_it_again_once_the_job_has_ended) {
  auto trains = with(api::Cause::kUnknown, true);
  trains.epoch.replay.emplace();
  trains.epoch.replay->node = "b";
  auto ended = trains;
  ended.phase = api::Phase::kSucceeded;
  EXPECT_EQ(recovered_since(trains, ended).size(), 1u);
  EXPECT_TRUE(recovered_since(ended, ended).empty());
}

}  // namespace
}  // namespace pitcrew::control
