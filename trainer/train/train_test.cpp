#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>

#include "trainer/comm/memory_comm.hpp"
#include "trainer/train/testing/tiny_training.hpp"
#include "trainer/train/trainer.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;

class TrainTest : public TinyTraining {
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

  struct World {
    std::vector<Outcome> outcomes;
    std::string printed;
  };
  // Trains with ranks as threads; every rank is asked to stop in step `stop_in` (0: never).
  World run(TrainConfig config, const std::string& checkpoints, uint32_t ranks, uint64_t stop_in = 0) {
    config.checkpoint.path = folder_ + "/" + checkpoints;
    ++epoch_;
    MemoryGroup training(ranks), saving(ranks);
    World world;
    world.outcomes.resize(ranks);
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const auto comm = training.take(rank), checkpoint_comm = saving.take(rank);
        RankEnvironment environment;
        environment.rank = rank;
        environment.size = ranks;
        environment.slot = Slot(rank);
        environment.managed = true;
        environment.job = {"uid-1", "team", "job", Term(1)};
        environment.epoch = EpochNumber(epoch_);
        page::Writer page;
        const RealClock clock;
        uint64_t asked = 0;
        TrainerServices services;
        services.training = comm.get();
        services.checkpoints = ranks > 1 ? checkpoint_comm.get() : nullptr;
        services.page = &page;
        services.clock = &clock;
        services.files = &posix_file_system();
        services.stop_asked = [&] { return ++asked == stop_in; };
        services.print = [&](const std::string& line) { world.printed += line + "\n"; };
        world.outcomes[rank] = train(config, environment, services);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Outcome& outcome : world.outcomes) EXPECT_EQ(outcome.message, "") << world.printed;
    return world;
  }

  // The log without the epochs, which differ between runs.
  std::string log(const std::string& checkpoints) const {
    std::ifstream file(folder_ + "/" + checkpoints + "/steps.jsonl");
    std::string all;
    for (std::string line; std::getline(file, line);) {
      const size_t from = line.find(",\"epoch\":"), to = line.find(",\"samples\"");
      const size_t times = std::min(line.find(",\"seconds\":"), line.size() - 1);  // nor the times
      all += line.substr(0, from) + line.substr(to, times - to) + "}\n";
    }
    return all;
  }

  uint64_t epoch_ = 0;
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
  MemoryGroup group(1);
  const auto comm = group.take(0);
  RankEnvironment environment;
  environment.job = {"uid-1", "team", "job", Term(1)};
  environment.epoch = EpochNumber(9);
  page::Writer page;
  const RealClock clock;
  TrainerServices services;
  services.training = comm.get();
  services.page = &page;
  services.clock = &clock;
  services.files = &posix_file_system();
  const Outcome outcome = train(changed, environment, services);
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
  for (const uint64_t epoch : {1, 2}) {
    MemoryGroup group(1);
    const auto comm = group.take(0);
    RankEnvironment environment;
    environment.managed = true;
    environment.job = {"uid-1", "team", "job", Term(1)};
    environment.epoch = EpochNumber(epoch);
    page::Writer page;
    const RealClock clock;
    TrainerServices services;
    services.training = comm.get();
    services.page = &page;
    services.clock = &clock;
    services.files = &posix_file_system();
    outcomes.push_back(train(wild, environment, services));
  }
  EXPECT_EQ(outcomes[0].exit_code, exit_code::kTryAgain) << outcomes[0].message;
  EXPECT_EQ(outcomes[1].exit_code, exit_code::kBadData) << outcomes[1].message;
  EXPECT_NE(outcomes[1].message.find("samples 8 to 15"), std::string::npos) << outcomes[1].message;
}

TEST_F(TrainTest, a_lost_peer_is_named_and_nothing_else_is_said) {
  MemoryGroup training(3), saving(3);
  std::vector<Outcome> outcomes(3);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      const auto comm = training.take(rank), checkpoint_comm = saving.take(rank);
      RankEnvironment environment;
      environment.rank = rank;
      environment.size = 3;
      page::Writer page;
      const RealClock clock;
      uint64_t asked = 0;
      TrainerServices services;
      services.training = comm.get();
      services.checkpoints = checkpoint_comm.get();
      services.page = &page;
      services.clock = &clock;
      services.files = &posix_file_system();
      services.stop_asked = [&] {
        if (rank == 1 && ++asked == 4) training.kill(1);
        return false;
      };
      outcomes[rank] = train(config(), environment, services);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const uint32_t rank : {0u, 2u}) {
    EXPECT_EQ(outcomes[rank].exit_code, exit_code::kTryAgain);
    ASSERT_TRUE(outcomes[rank].lost_peer) << outcomes[rank].message;
  }
  // Threads that return destroy their communicators, so the second survivor may see the first one go; processes wait.
  EXPECT_TRUE(outcomes[0].lost_peer == Rank(1) || outcomes[2].lost_peer == Rank(1));
}

}  // namespace
}  // namespace pitcrew::trainer
