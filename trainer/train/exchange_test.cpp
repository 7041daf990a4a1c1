// What carries gradients between ranks: NCCL (a library for tests, on the host's memory) beside host memory.
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "trainer/train/testing/training_ranks.hpp"

namespace pitcrew::trainer {
namespace {

class ExchangeTest : public TrainingRanks {
 protected:
  TrainConfig config(CommBackend backend, CommReduce reduce = CommReduce::kOrdered) const {
    TrainConfig config = tiny();
    config.steps = 4;
    config.optimizer.learning_rate = 1e-2;
    config.backend = backend;
    config.reduce = reduce;
    config.compare_every = 1;
    return config;
  }

  static std::shared_ptr<const nccl::Api> fake() {
    return *nccl::load(std::string(PITCREW_BIN_DIR) + "/../lib/fake-nccl/libnccl.so.2");
  }

  struct Exchanged : World {
    std::string log;  // steps.jsonl
    std::string manifest;
  };
  // `library(rank)`: null where a rank has none.
  Exchanged run(TrainConfig config, uint32_t ranks,
                const std::function<std::shared_ptr<const nccl::Api>(uint32_t)>& library) {
    const std::string folder = folder_ + "/run-" + std::to_string(++runs_);
    config.checkpoint.path = folder;
    Hooks hooks;
    hooks.given = [&](RankEnvironment& environment, TrainerServices& services, Channels&) {
      services.host_nccl = library(environment.rank);
      services.stop_asked = nullptr;
    };
    Exchanged world{train_ranks(config, memory_channels(ranks), hooks), text_of(folder + "/steps.jsonl"), ""};
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
      if (entry.path().filename().string().starts_with("step-"))
        world.manifest = text_of(entry.path() / "manifest.json");
    }
    return world;
  }

  static std::string text_of(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  // The losses' bits, step by step.
  static std::vector<std::string> bits(const Exchanged& world) {
    std::vector<std::string> all;
    std::istringstream lines(world.log);
    for (std::string line; std::getline(lines, line);) all.push_back(Json::parse(line).value("bits", ""));
    return all;
  }

 private:
  int runs_ = 0;
};

std::shared_ptr<const nccl::Api> none(uint32_t) { return nullptr; }

TEST_F(ExchangeTest, nccl_moves_bytes_and_the_sums_have_the_same_bits_as_through_host_memory) {
  const Exchanged alone = run(config(CommBackend::kTcp), 1, none);
  expect_done(alone);
  ASSERT_EQ(bits(alone).size(), 4u);
  for (const uint32_t ranks : {2u, 4u}) {
    const Exchanged world = run(config(CommBackend::kAuto), ranks, [](uint32_t) { return fake(); });
    expect_done(world);
    EXPECT_NE(world.printed.find("gradients go from GPU to GPU by NCCL 2.28.9"), std::string::npos) << world.printed;
    EXPECT_EQ(bits(world), bits(alone)) << ranks;
    EXPECT_EQ(world.printed.find("not reproducible"), std::string::npos);
  }
}

TEST_F(ExchangeTest, more_ranks_than_lanes_go_through_nccl_too) {
  TrainConfig few = config(CommBackend::kTcp);
  few.sequences = 3;
  const Exchanged alone = run(few, 1, none);
  few.backend = CommBackend::kNccl;
  const Exchanged world = run(few, 4, [](uint32_t) { return fake(); });
  expect_done(world);
  EXPECT_EQ(bits(world), bits(alone));
}

TEST_F(ExchangeTest, where_nccl_adds_everything_says_that_it_is_not_reproducible) {
  const Exchanged alone = run(config(CommBackend::kTcp), 1, none);
  const Exchanged world = run(config(CommBackend::kNccl, CommReduce::kNccl), 4, [](uint32_t) { return fake(); });
  expect_done(world);
  EXPECT_NE(world.printed.find("not reproducible: gradients are added by NCCL"), std::string::npos) << world.printed;
  std::istringstream lines(world.log), ours(alone.log);
  int steps = 0;
  for (std::string line, other; std::getline(lines, line) && std::getline(ours, other); ++steps) {
    const Json step = Json::parse(line);
    EXPECT_EQ(step.value("reproducible", true), false) << line;
    EXPECT_FALSE(Json::parse(other).contains("reproducible")) << other;
    // The same sums but for rounding.
    EXPECT_NEAR(step.at("loss").get<double>(), Json::parse(other).at("loss").get<double>(), 1e-4);
  }
  EXPECT_EQ(steps, 4);
  EXPECT_NE(world.manifest.find("nccl, not reproducible"), std::string::npos) << world.manifest;
  EXPECT_FALSE(alone.manifest.empty());
  EXPECT_EQ(alone.manifest.find("not reproducible"), std::string::npos);
}

TEST_F(ExchangeTest, without_nccl_on_a_rank_all_take_the_other_way_or_say_who_has_none) {
  const auto all_but_one = [](uint32_t rank) { return rank == 1 ? nullptr : fake(); };
  const Exchanged chosen = run(config(CommBackend::kAuto), 2, all_but_one);
  expect_done(chosen);
  EXPECT_EQ(chosen.printed.find("by NCCL"), std::string::npos) << chosen.printed;

  const Exchanged required = run(config(CommBackend::kNccl), 2, all_but_one);
  EXPECT_EQ(required.outcomes[0].exit_code, exit_code::kBadConfiguration);
  EXPECT_NE(required.outcomes[0].message.find("rank 1 can't use NCCL"), std::string::npos)
      << required.outcomes[0].message;
  EXPECT_NE(required.outcomes[1].message.find("needs a GPU for each rank"), std::string::npos)
      << required.outcomes[1].message;
}

TEST_F(ExchangeTest, ranks_with_different_versions_of_nccl_do_not_meet) {
  const auto versions = [](uint32_t rank) {
    auto api = std::make_shared<nccl::Api>(*fake());
    if (rank == 1) api->version = 22705;
    return std::shared_ptr<const nccl::Api>(api);
  };
  const Exchanged world = run(config(CommBackend::kNccl), 2, versions);
  for (const Outcome& outcome : world.outcomes) {
    EXPECT_EQ(outcome.exit_code, exit_code::kBadConfiguration);
    EXPECT_NE(outcome.message.find("rank 1 has NCCL 2.27.5, rank 0 has 2.28.9"), std::string::npos) << outcome.message;
  }
}

TEST(ExchangeConfig, nccl_cannot_add_what_it_does_not_move) {
  const Json json = Json::parse(R"({"model": {"kind": "llama", "layers": 1, "width": 16, "heads": 2, "mlp": 32,
    "vocab": 256, "context": 8}, "steps": 1, "batch": {"sequences": 1}, "data": {"bin": {"paths": ["x.bin"]}},
    "comm": {"backend": "tcp", "reduce": "nccl"}})");
  Problems problems;
  EXPECT_FALSE(read_train_config(json, "/", problems));
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].message.find("comm.backend is tcp"), std::string::npos) << problems[0].message;
}

}  // namespace
}  // namespace pitcrew::trainer
