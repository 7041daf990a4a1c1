// Grids with tensor ranks.
#include <cmath>
#include <cstring>

#include "tests/contract/grid/grid_world.hpp"

namespace pitcrew::trainer {
namespace {

// Six steps of AdamW from the same parameters: its first steps divide each gradient by its own size, so that where one
// is next to nothing its rounding counts in full. Norm-wise that leaves, of a tensor of six steps:
constexpr double kTolerance = 2e-3;

class TensorGrid : public GridTraining, public ::testing::WithParamInterface<Backend> {
 protected:
  // Of gpt2 a vocabulary that can't be dealt evenly; clipping, uneven lanes, evaluations.
  TrainConfig config(ModelKind kind) const {
    TrainConfig config = tiny();
    config.model.kind = kind;
    config.model.layers = 2;
    config.model.heads = 8;
    config.model.kv_heads = 8;
    config.model.own_head_width = kind == ModelKind::kLlama ? 6 : 0;
    config.model.qk_norm = kind == ModelKind::kLlama;
    config.model.tie_embeddings = kind == ModelKind::kGpt2;
    config.model.vocab = kind == ModelKind::kGpt2 ? 257 : 256;
    config.sequences = 20;
    config.steps = 6;
    config.warmup = 2;
    config.optimizer.learning_rate = 1e-3;
    config.clip = 0.5;
    config.held_out = 6;
    config.evaluate_every = 4;
    config.compare_every = 2;
    return config;
  }
  Options grid(const Grid& grid, uint64_t stop_in = 0) const {
    return {.ranks = grid.ranks(),
            .grid = {.shards = grid.shards, .tensor = grid.tensor},
            .backend = GetParam(),
            .stop_in = stop_in,
            .each_step = {}};
  }
  void expect_near(const std::string& found, const std::string& expected) {
    const auto values = state(found), wanted = state(expected);
    ASSERT_EQ(values.size(), wanted.size());
    for (const auto& [name, bytes] : wanted) {
      if (name.ends_with(".m") || name.ends_with(".v")) continue;
      ASSERT_EQ(values.at(name).size(), bytes.size()) << name;
      double difference = 0, norm = 0;
      for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
        float a, b;
        std::memcpy(&a, values.at(name).data() + at, sizeof a);
        std::memcpy(&b, bytes.data() + at, sizeof b);
        difference += std::pow(double{a} - double{b}, 2);
        norm += double{b} * double{b};
      }
      EXPECT_LT(std::sqrt(difference), kTolerance * std::sqrt(norm) + 1e-6) << name << " of " << found;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Backends, TensorGrid, testing::Values(Backend::kMemory, Backend::kTcp, Backend::kNccl),
                         [](const auto& info) { return to_string(info.param); });

// Replicas and shards of up to so many ranks, and a number of shards that divides nothing.
std::vector<Grid> grids_of(uint32_t tensor) {
  std::vector<Grid> grids;
  for (uint32_t replicas = 1; replicas <= kMostRanks; replicas *= 2) {
    for (uint32_t shards = 1; replicas * shards * tensor <= kMostRanks; shards *= 2)
      grids.push_back({replicas, shards, tensor});
  }
  if (tensor * 3 <= kMostRanks) grids.push_back({1, 3, tensor});
  return grids;
}

TEST_P(TensorGrid, trains_as_one_rank_does_and_to_the_same_bits_on_any_replicas_and_shards) {
  for (const ModelKind kind : {ModelKind::kGpt2, ModelKind::kLlama}) {
    const std::string name = kind == ModelKind::kGpt2 ? "gpt2" : "llama";
    TrainConfig settings = config(kind);
    if (GetParam() == Backend::kNccl) {
      // Streams of many ranks that spin for each other, as NCCL's do, take a small machine's time.
      if (kind == ModelKind::kGpt2) continue;
      settings.steps = 3;
      settings.evaluate_every = 2;
    }
    expect_done(run(settings, name, {.ranks = 1}));
    for (const uint32_t tensor : {2u, 4u, 8u}) {
      if (tensor > kMostRanks) continue;
      const std::string one = name + " 1x1x" + std::to_string(tensor);
      expect_done(run(settings, one, grid({1, 1, tensor})));
      expect_near(one, name);
      const auto expected = state(one);
      for (const Grid& other : grids_of(tensor)) {
        const std::string own = name + " " + to_string(other);
        expect_done(run(settings, own, grid(other)));
        EXPECT_EQ(log(own), log(one)) << own;
        EXPECT_TRUE(state(own) == expected) << own;
      }
    }
  }
}

TEST_P(TensorGrid, a_run_goes_on_with_more_or_fewer_tensor_ranks_from_the_same_state) {
  const TrainConfig settings = config(ModelKind::kGpt2);
  expect_done(run(settings, "whole", {.ranks = 1}));
  expect_done(run(settings, "same", grid({2, 1, 2})));
  // With as many of them, bit for bit.
  expect_done(run(settings, "parted", grid({1, 1, 2}, 2)));
  expect_done(run(settings, "parted", grid({4, 1, 2})));
  EXPECT_EQ(log("parted"), log("same"));
  EXPECT_TRUE(state("parted") == state("same"));
  // With others: 2, 1, 2, 4.
  expect_done(run(settings, "way", grid({2, 1, 2}, 1)));
  expect_done(run(settings, "way", grid({1, 1, 1}, 2)));
  const World third = run(settings, "way", grid({1, 1, 2}, 2));
  expect_done(third);
  EXPECT_NE(third.printed.find("not bit for bit: tensor was absent and is 2"), std::string::npos) << third.printed;
  expect_done(run(settings, "way", grid({2, 1, 4})));
  expect_near("way", "whole");
}

TEST_P(TensorGrid, a_run_of_shards_and_tensor_ranks_goes_on_in_any_other_grid) {
  const TrainConfig settings = config(ModelKind::kLlama);
  expect_done(run(settings, "whole", {.ranks = 1}));
  expect_done(run(settings, "same", grid({1, 1, 2})));
  // 8, 4, 6 and 16 ranks with as many tensor ranks: bit for bit.
  const Grid bits[] = {{2, 2, 2}, {1, 2, 2}, {1, 3, 2}, {2, 4, 2}};
  for (const Grid& part : bits) {
    const World world = run(settings, "bits", grid(part, &part == std::end(bits) - 1 ? 0 : 1));
    expect_done(world);
    EXPECT_EQ(world.printed.find("tensor was"), std::string::npos) << world.printed;
  }
  EXPECT_EQ(log("bits"), log("same"));
  EXPECT_TRUE(state("bits") == state("same"));
  // 8, 4, 3 and 16 ranks, and 2, 1, 1 and 4 tensor ranks.
  const Grid ways[] = {{2, 2, 2}, {1, 4, 1}, {1, 3, 1}, {2, 2, 4}};
  for (const Grid& part : ways) expect_done(run(settings, "way", grid(part, &part == std::end(ways) - 1 ? 0 : 1)));
  expect_near("way", "whole");
}

TEST_F(GridTraining, what_tensor_ranks_can_not_share_is_refused_with_the_remedy) {
  TrainConfig settings = tiny();
  settings.model.heads = settings.model.kv_heads = 2;
  const World world = run(settings, "run", {.ranks = 4, .grid = {.tensor = 4}});
  for (const Outcome& outcome : world.outcomes) {
    EXPECT_EQ(outcome.exit_code, exit_code::kBadConfiguration);
    EXPECT_NE(outcome.message.find("model.heads 2 can't be dealt evenly"), std::string::npos) << outcome.message;
  }
}

TEST_F(GridTraining, a_killed_tensor_rank_is_named_by_everybody) {
  TrainConfig settings = tiny();
  settings.steps = 50;
  settings.parallel = {.tensor = 2};
  const auto lost = lose(settings, {.ranks = 4}, 2, 3);
  for (uint32_t rank = 0; rank < 4; ++rank) {
    if (rank == 2) continue;
    EXPECT_TRUE(lost[rank] == Rank(2)) << rank << " lost " << (lost[rank] ? lost[rank]->value : 99);
  }
}

TEST_F(GridTraining, a_killed_rank_of_replicas_shards_and_tensor_ranks_is_named_by_everybody) {
  TrainConfig settings = tiny();
  settings.steps = 50;
  settings.parallel = {.shards = 2, .tensor = 2};
  const auto lost = lose(settings, {.ranks = 8}, 5, 3);
  for (uint32_t rank = 0; rank < 8; ++rank) {
    if (rank == 5) continue;
    EXPECT_TRUE(lost[rank] == Rank(5)) << rank << " lost " << (lost[rank] ? lost[rank]->value : 99);
  }
}

class TensorHealth : public GridTraining {
 protected:
  World run_with(const std::string& fault, uint32_t ranks, uint32_t shards = 1) {
    TrainConfig settings = tiny();
    settings.steps = 20;
    settings.compare_every = 4;  // step 12 is settled at once
    settings.optimizer.learning_rate = 1e-3;
    return run(settings, "run",
               {.ranks = ranks, .grid = {.shards = shards, .tensor = 2}, .fault = fault, .each_step = {}});
  }
};

TEST_F(TensorHealth, a_bit_that_flips_once_on_a_tensor_rank_is_found_by_computing_again) {
  const World world = run_with(R"({"rank": 2, "step": 12, "times": 1})", 4);
  EXPECT_EQ(world.outcomes[2].exit_code, exit_code::kReplaceNode) << world.outcomes[2].message;
  EXPECT_NE(world.outcomes[2].message.find("gave other bits"), std::string::npos) << world.outcomes[2].message;
  for (const uint32_t rank : {0u, 1u, 3u}) {
    EXPECT_NE(world.outcomes[rank].exit_code, exit_code::kReplaceNode);
    EXPECT_EQ(world.outcomes[rank].lost_peer, Rank(2));
  }
}

// The first gradient of rank 3 that isn't nothing is a norm's: the norm counts the first tensor rank's alone.
TEST_F(TensorHealth, what_all_tensor_ranks_hold_is_compared_between_them) {
  const World world = run_with(R"({"rank": 3, "step": 14, "times": 1, "bit": 22})", 4);
  for (const Outcome& outcome : world.outcomes) {
    EXPECT_EQ(outcome.exit_code, exit_code::kTryAgain);
    EXPECT_NE(outcome.message.find("step 16: tensor ranks 0 and 1 differ"), std::string::npos) << outcome.message;
  }
}

TEST_F(TensorHealth, a_bad_sample_gives_the_same_bits_on_all_tensor_ranks_and_is_named) {
  const World world = run_with(R"({"sample": 93})", 4);
  std::string all;
  for (const Outcome& outcome : world.outcomes) {
    EXPECT_NE(outcome.exit_code, exit_code::kDone);
    EXPECT_NE(outcome.exit_code, exit_code::kReplaceNode) << outcome.message;
    all += outcome.message + "\n";
  }
  EXPECT_NE(all.find("sample 93"), std::string::npos) << all;
}

TEST_F(TensorHealth, a_weight_that_flips_on_a_tensor_rank_is_found_by_its_replicas) {
  const World world = run_with(R"({"rank": 3, "step": 5, "what": "weight"})", 6);
  EXPECT_EQ(world.outcomes[3].exit_code, exit_code::kReplaceNode) << world.outcomes[3].message;
  for (const uint32_t rank : {0u, 1u, 2u, 4u, 5u}) EXPECT_EQ(world.outcomes[rank].exit_code, exit_code::kTryAgain);
}

TEST_F(TensorHealth, faults_are_found_under_shards_as_well) {
  const World flipped = run_with(R"({"rank": 2, "step": 12, "times": 1})", 4, 2);
  EXPECT_EQ(flipped.outcomes[2].exit_code, exit_code::kReplaceNode) << flipped.outcomes[2].message;
  for (const uint32_t rank : {0u, 1u, 3u}) EXPECT_EQ(flipped.outcomes[rank].lost_peer, Rank(2));
  std::string all;
  for (const Outcome& outcome : run_with(R"({"sample": 93})", 8, 2).outcomes) {
    EXPECT_NE(outcome.exit_code, exit_code::kDone);
    EXPECT_NE(outcome.exit_code, exit_code::kReplaceNode) << outcome.message;
    all += outcome.message + "\n";
  }
  EXPECT_NE(all.find("sample 93"), std::string::npos) << all;
  const World weight = run_with(R"({"rank": 3, "step": 5, "what": "weight"})", 12, 2);
  EXPECT_EQ(weight.outcomes[3].exit_code, exit_code::kReplaceNode) << weight.outcomes[3].message;
  for (const uint32_t rank : {0u, 1u, 2u, 4u, 7u, 11u})
    EXPECT_EQ(weight.outcomes[rank].exit_code, exit_code::kTryAgain) << weight.outcomes[rank].message;
}

}  // namespace
}  // namespace pitcrew::trainer
