#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "trainer/train/testing/training_ranks.hpp"

namespace pitcrew::trainer {
namespace {

class TrainTest : public TrainingRanks {
 protected:
  TrainConfig config() const {
    TrainConfig config = tiny();
    config.steps = 10;
    config.warmup = 2;
    config.optimizer.learning_rate = 1e-2;
    config.held_out = 6;
    config.evaluate_every = 4;
    return config;
  }

  // Every rank is asked to stop in step `stop_in` (0: never).
  World run(TrainConfig config, const std::string& checkpoints, uint32_t ranks, uint64_t stop_in = 0) {
    config.checkpoint.path = folder_ + "/" + checkpoints;
    World world = train_ranks(config, memory_channels(ranks), {.stop_in = stop_in});
    expect_done(world);
    return world;
  }
};

TEST_F(TrainTest, every_number_of_ranks_gives_the_same_losses_bit_for_bit) {
  run(config(), "one", 1);
  const std::string expected = log("one");
  EXPECT_EQ(std::count(expected.begin(), expected.end(), '\n'), 10 + 3);  // evaluated at 4, 8 and the end
  for (const uint32_t ranks : {2u, 3u, 4u, 8u}) {
    const std::string name = std::to_string(ranks);
    run(config(), name, ranks);
    EXPECT_EQ(log(name), expected) << ranks << " ranks";
  }
}

TEST_F(TrainTest, a_run_that_stopped_goes_on_bit_for_bit_with_any_number_of_ranks) {
  run(config(), "whole", 2);
  const uint32_t worlds[][2] = {{2, 2}, {1, 4}, {8, 1}, {4, 3}};
  for (const auto& [before, after] : worlds) {
    const std::string name = std::to_string(before) + "to" + std::to_string(after);
    EXPECT_NE(run(config(), name, before, 5).printed.find("stopped at step 5"), std::string::npos);
    const World world = run(config(), name, after);
    EXPECT_NE(world.printed.find("resuming from step 5 (file system)"), std::string::npos) << world.printed;
    EXPECT_EQ(log(name), log("whole")) << name;
  }
}

TEST_F(TrainTest, gpt2_trains_too_and_resumes) {
  TrainConfig gpt2 = config();
  gpt2.model.kind = ModelKind::kGpt2;
  gpt2.model.mlp = 64;
  gpt2.model.tie_embeddings = true;
  run(gpt2, "whole", 1);
  run(gpt2, "parts", 2, 3);
  run(gpt2, "parts", 1);
  EXPECT_EQ(log("parts"), log("whole"));
}

TEST_F(TrainTest, the_loss_falls) {
  TrainConfig longer = config();
  longer.steps = 60;
  run(longer, "run", 1);
  std::istringstream lines(log("run"));
  std::string first, last;
  std::getline(lines, first);
  for (std::string line; std::getline(lines, line);) last = line.find("kind") == std::string::npos ? line : last;
  const double start = Json::parse(first)["loss"], end = Json::parse(last)["loss"];
  EXPECT_LT(end, 0.7 * start);
}

TEST_F(TrainTest, another_dataset_is_refused_when_resuming) {
  run(config(), "run", 1, 3);
  std::ofstream(folder_ + "/text.txt", std::ios::app) << "more";
  TrainConfig changed = config();
  changed.checkpoint.path = folder_ + "/run";
  const Outcome outcome = train_ranks(changed, memory_channels(1)).outcomes[0];
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_NE(outcome.message.find("dataset"), std::string::npos) << outcome.message;
}

TEST_F(TrainTest, a_step_that_is_not_finite_is_tried_again_once_and_then_blamed_on_program_or_data) {
  TrainConfig wild = config();
  wild.optimizer.learning_rate = 1e30;
  wild.clip = 0;
  wild.warmup = 0;
  wild.checkpoint.path = folder_ + "/wild";
  std::vector<Outcome> outcomes;
  for (int epoch = 0; epoch < 2; ++epoch) outcomes.push_back(train_ranks(wild, memory_channels(1)).outcomes[0]);
  EXPECT_EQ(outcomes[0].exit_code, exit_code::kTryAgain) << outcomes[0].message;
  EXPECT_EQ(outcomes[1].exit_code, exit_code::kBadData) << outcomes[1].message;
  EXPECT_NE(outcomes[1].message.find("samples 8 to 15"), std::string::npos) << outcomes[1].message;
}

TEST_F(TrainTest, a_lost_peer_is_named_and_nothing_else_is_said) {
  Hooks hooks;
  hooks.each_step = [](uint32_t rank, uint64_t step, Channels& channels) {
    if (rank == 1 && step == 4) channels[0]->abort();
  };
  const std::vector<Outcome> outcomes = train_ranks(config(), memory_channels(3), hooks).outcomes;
  for (const uint32_t rank : {0u, 2u}) {
    EXPECT_EQ(outcomes[rank].exit_code, exit_code::kTryAgain);
    ASSERT_TRUE(outcomes[rank].lost_peer) << outcomes[rank].message;
  }
  // Threads that return destroy their communicators, so the second survivor may see the first one go; processes wait.
  EXPECT_TRUE(outcomes[0].lost_peer == Rank(1) || outcomes[2].lost_peer == Rank(1));
}

}  // namespace
}  // namespace pitcrew::trainer
