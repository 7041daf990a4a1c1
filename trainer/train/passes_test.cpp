// Lanes of several passes: one gradient however many passes, the same bits on every number of ranks, and the sum that
// one large pass gives but for its rounding.
#include <cmath>
#include <thread>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "trainer/comm/memory_comm.hpp"
#include "trainer/train/lane_engine.hpp"
#include "trainer/train/memory_plan.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint32_t kSequences = 8, kTokens = 16;

ModelConfig tiny() {
  return {.layers = 2, .width = 32, .heads = 4, .kv_heads = 2, .mlp = 56, .vocab = 70, .context = kTokens};
}

std::vector<int32_t> batch() {
  Random random(7);
  std::vector<int32_t> tokens(kSequences * (kTokens + 1));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(70));
  return tokens;
}

struct Trained {
  std::vector<uint64_t> digests;  // of the state
  std::vector<double> losses;     // of the last step's lanes
};

// Three steps on one rank of several.
Trained train(const LanePlan& plan, uint32_t rank, Comm& comm) {
  EngineSettings settings{tiny(), kTokens, plan, rank, {}};
  auto engine = std::move(*LaneEngine::create_on_cpu(std::move(settings), {.threads = 1}));
  engine->init(3);
  GradientReducer reducer(comm, plan);
  const std::vector<int32_t> all = batch();
  const LaneRange lanes = plan.range(rank);
  const size_t lane = plan.lane_sequences() * (kTokens + size_t{1});
  const std::span<const int32_t> mine(all.data() + lanes.first * lane, lanes.count() * lane);
  Trained trained;
  for (uint64_t step = 1; step <= 3; ++step) {
    trained.losses = *engine->compute(mine);
    EXPECT_TRUE(engine->reduce(reducer).ok());
    engine->update(kSequences * kTokens, 1, INFINITY, {.learning_rate = 0.01}, step, [] {});
    EXPECT_EQ(engine->updated().finite, 1u);
  }
  trained.digests = engine->state_digests();
  return trained;
}

std::vector<Trained> train_all(uint32_t micro, uint32_t passes, uint32_t ranks) {
  const LanePlan plan = *LanePlan::make(kSequences, micro, ranks, 1, passes);
  MemoryGroup group(ranks);
  std::vector<Trained> trained(ranks);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto comm = group.take(rank);
      trained[rank] = train(plan, rank, *comm);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return trained;
}

TEST(Passes, every_number_of_ranks_gives_the_same_bits) {
  const Trained one = train_all(1, 4, 1)[0];
  const std::vector<Trained> two = train_all(1, 4, 2);
  EXPECT_EQ(one.losses.size(), 2u);
  for (const Trained& rank : two) EXPECT_EQ(rank.digests, one.digests);
  EXPECT_EQ(two[0].losses[0], one.losses[0]);
  EXPECT_EQ(two[1].losses[0], one.losses[1]);
}

TEST(Passes, add_up_to_what_one_pass_over_all_gives_but_for_rounding) {
  const Trained whole = train_all(8, 1, 1)[0], passes = train_all(1, 8, 1)[0], lanes = train_all(1, 1, 1)[0];
  // Another order of additions, and not the tree's.
  EXPECT_NE(passes.digests, whole.digests);
  EXPECT_NE(passes.digests, lanes.digests);
  double sum = 0;
  for (const double loss : lanes.losses) sum += loss;
  ASSERT_EQ(passes.losses.size(), 1u);
  EXPECT_NEAR(passes.losses[0] / sum, 1, 1e-5);
  EXPECT_NEAR(passes.losses[0] / whole.losses[0], 1, 1e-5);
}

TEST(Passes, take_one_gradient_where_lanes_take_a_tree) {
  EXPECT_EQ(LaneEngine::gradient_buffers(*LanePlan::make(8, 1, 1), 0), 4u);
  EXPECT_EQ(LaneEngine::gradient_buffers(*LanePlan::make(8, 1, 1, 1, 8), 0), 1u);
  const auto refused = LanePlan::make(8, 2, 1, 1, 3);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message,
            "batch.passes 3 times batch.micro 2 does not divide batch.sequences 8; choose divisors");
}

// Llama 3.1 8B in eight passes of one sequence of 2,048 on a GPU of 141 GB.
TEST(Passes, eight_billion_parameters_fit_one_gpu) {
  PlanRequest request;
  request.model = {
      .layers = 32, .width = 4096, .heads = 32, .kv_heads = 8, .mlp = 14336, .vocab = 128256, .context = 2048};
  request.sequences = 8;
  request.micro = 1;
  request.tokens = 2048;
  request.numbers = Numbers::kMixed;
  request.masters = Masters::kRemainder;
  request.recompute = {.norms = true, .activation = true, .block = true};
  const uint64_t lanes = memory_plan(request)->bytes();
  request.passes = 8;
  const MemoryPlan plan = *memory_plan(request);
  EXPECT_EQ(plan.gradient_buffers, 1u);
  EXPECT_LT(plan.bytes(), uint64_t{141} * 1000 * 1000 * 1000);
  EXPECT_GT(lanes - plan.bytes(), 3 * uint64_t{32} * 1000 * 1000 * 1000);
  // With cuDNN's attention too.
  EXPECT_EQ(choose_attention(request, {}, Masters::kRemainder, uint64_t{141} * 1000 * 1000 * 1000)->attention,
            AttentionEngine::kCudnn);
}

}  // namespace
}  // namespace pitcrew::trainer
