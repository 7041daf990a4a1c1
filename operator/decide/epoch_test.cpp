#include "operator/decide/epoch.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

TEST(EpochMessage, carries_the_checkpoint_settings_as_the_job_has_them) {
  auto job = std::make_shared<api::TrainingJob>();
  job->spec.replicas = 2;
  job->spec.checkpoint.emplace();
  job->spec.checkpoint->path = "s3://bucket/job";
  job->spec.checkpoint->keep = 5;
  job->spec.checkpoint->every.emplace().automatic = true;
  Snapshot snapshot;
  snapshot.job = job;
  snapshot.nodes = std::make_shared<std::vector<NodeView>>();
  const Situation situation(snapshot, Instant(seconds(1)));
  const CheckpointSettings settings = epoch_message(situation).checkpoint;
  EXPECT_EQ(settings.path, "s3://bucket/job");
  EXPECT_EQ(settings.keep, 5u);
  EXPECT_TRUE(settings.every_auto);
  EXPECT_FALSE(settings.every_steps || settings.every_time || settings.memory_steps);
}

}  // namespace
}  // namespace pitcrew::control
