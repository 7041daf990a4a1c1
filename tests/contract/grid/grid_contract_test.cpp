#include "tests/contract/grid/grid_world.hpp"

namespace pitcrew::trainer {
namespace {

class GridContract : public GridTraining, public ::testing::WithParamInterface<Backend> {
 protected:
  // Blocks of more than one kind of unit, a norm that clips, lanes that don't divide evenly, and evaluations.
  TrainConfig llama() const {
    TrainConfig config = tiny();
    config.model.layers = 4;
    config.model.qk_norm = true;
    config.sequences = 20;
    config.steps = 6;
    config.warmup = 2;
    config.optimizer.learning_rate = 1e-2;
    config.clip = 0.5;
    config.held_out = 6;
    config.evaluate_every = 4;
    return config;
  }
  TrainConfig gpt2() const {
    TrainConfig config = llama();
    config.model.qk_norm = false;
    config.model.kind = ModelKind::kGpt2;
    config.model.layers = 3;
    config.model.mlp = 64;
    config.model.tie_embeddings = true;
    return config;
  }
  Options grid(uint32_t ranks, uint32_t shards, uint64_t stop_in = 0) const {
    return {.ranks = ranks, .grid = {.shards = shards}, .backend = GetParam(), .stop_in = stop_in, .each_step = {}};
  }
};

INSTANTIATE_TEST_SUITE_P(Backends, GridContract, testing::Values(Backend::kMemory, Backend::kTcp, Backend::kNccl),
                         [](const auto& info) { return to_string(info.param); });

constexpr uint32_t kGrids[][2] = {{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 4}, {4, 2}, {8, 1},
                                  {8, 8}, {8, 4}, {8, 2}, {3, 3}, {6, 3}, {5, 5}};

TEST_P(GridContract, every_grid_trains_to_the_bits_of_one_rank) {
  for (const bool tied : {false, true}) {
    const TrainConfig config = tied ? gpt2() : llama();
    const std::string name = tied ? "gpt2" : "llama";
    expect_done(run(config, name, {.ranks = 1}));
    const auto expected = state(name);
    for (const auto& [ranks, shards] : kGrids) {
      if (ranks > kMostRanks) continue;
      const std::string own = name + std::to_string(ranks) + "/" + std::to_string(shards);
      expect_done(run(config, own, grid(ranks, shards)));
      EXPECT_EQ(log(own), log(name)) << own;
      EXPECT_TRUE(state(own) == expected) << own;
    }
  }
}

TEST_P(GridContract, a_run_that_stopped_goes_on_in_any_other_grid_bit_for_bit) {
  expect_done(run(llama(), "whole", {.ranks = 1}));
  const auto expected = state("whole");
  // Ranks and shards of each part of the run.
  const std::vector<std::vector<std::pair<uint32_t, uint32_t>>> ways = {
      {{8, 4}, {4, 2}, {3, 3}, {16, 8}}, {{4, 4}, {4, 1}}, {{2, 1}, {8, 8}}, {{4, 2}, {1, 1}}};
  for (size_t way = 0; way < ways.size(); ++way) {
    const std::string name = "way" + std::to_string(way);
    for (size_t part = 0; part < ways[way].size(); ++part) {
      const auto [ranks, shards] = ways[way][part];
      const bool last = part + 1 == ways[way].size();
      expect_done(run(llama(), name, grid(ranks, shards, last ? 0 : 2)));
    }
    EXPECT_EQ(log(name), log("whole")) << name;
    EXPECT_TRUE(state(name) == expected) << name;
  }
}

TEST_F(GridTraining, recomputed_blocks_and_several_threads_change_no_bit_of_a_sharded_run) {
  TrainConfig config = tiny();
  config.model.layers = 4;
  config.steps = 3;
  config.threads = 2;
  expect_done(run(config, "whole", {.ranks = 1}));
  config.recompute = {.norms = true, .activation = true, .block = true};
  expect_done(run(config, "parts", {.ranks = 4, .grid = {.shards = 2}}));
  EXPECT_EQ(log("parts"), log("whole"));
  EXPECT_TRUE(state("parts") == state("whole"));
}

TEST_F(GridTraining, replicas_and_shards_without_a_lane_change_no_bit) {
  TrainConfig config = tiny();
  config.model.layers = 3;
  config.steps = 4;
  config.sequences = 3;
  expect_done(run(config, "whole", {.ranks = 1}));
  // Of four replicas the first has no lane, of the others' two shards the second.
  expect_done(run(config, "parts", {.ranks = 8, .grid = {.shards = 2}}));
  EXPECT_EQ(log("parts"), log("whole"));
  EXPECT_TRUE(state("parts") == state("whole"));
}

TEST_F(GridTraining, a_killed_rank_of_a_sharded_run_is_named_by_everybody) {
  TrainConfig config = tiny();
  config.model.layers = 4;
  config.steps = 50;
  config.parallel = {.shards = 4};
  const auto lost = lose(config, {.ranks = 8}, 5, 3);
  for (uint32_t rank = 0; rank < 8; ++rank) {
    if (rank == 5) continue;
    EXPECT_TRUE(lost[rank] == Rank(5)) << rank << " lost " << (lost[rank] ? lost[rank]->value : 99);
  }
}

TEST_F(GridTraining, a_grid_that_the_ranks_can_not_be_is_refused_with_the_remedy) {
  const World world = run(tiny(), "run", {.ranks = 4, .grid = {.shards = 3}});
  for (const Outcome& outcome : world.outcomes) {
    EXPECT_EQ(outcome.exit_code, exit_code::kBadConfiguration);
    EXPECT_NE(outcome.message.find("does not divide the 4 ranks; start a multiple of 3"), std::string::npos)
        << outcome.message;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
