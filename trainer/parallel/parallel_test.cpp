#include <bit>
#include <cmath>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "trainer/comm/memory_comm.hpp"
#include "trainer/parallel/gradient_reducer.hpp"
#include "trainer/parallel/mesh.hpp"

namespace pitcrew::trainer {
namespace {

// Numbers whose sums depend on the order of addition.
std::vector<float> lane_gradient(uint32_t lane, size_t elements) {
  Random random(1000 + lane);
  std::vector<float> gradient(elements);
  for (float& x : gradient)
    x = static_cast<float>((random.uniform() - 0.5) * std::exp2(static_cast<double>(random.below(24))));
  return gradient;
}

// What the definition says, recursively.
std::vector<float> reference(uint32_t first, uint32_t width, uint32_t lanes, size_t elements) {
  if (width == 1) return lane_gradient(first, elements);
  std::vector<float> left = reference(first, width / 2, lanes, elements);
  if (first + width / 2 >= lanes) return left;
  const std::vector<float> right = reference(first + width / 2, width / 2, lanes, elements);
  for (size_t i = 0; i < elements; ++i) left[i] += right[i];
  return left;
}

// One rank's part: folds its lanes one by one, as the trainer does.
Status reduce_on(Comm& comm, const LanePlan& plan, size_t piece, std::span<float> out) {
  const LaneRange range = plan.range(comm.rank());
  std::vector<std::vector<float>> buffers;
  TreeFold fold(plan.lanes());
  size_t alive = 0, peak = 0;
  for (uint32_t lane = range.first; lane < range.end; ++lane) {
    buffers.push_back(lane_gradient(lane, out.size()));
    peak = std::max(peak, ++alive);
    fold.push({0, lane}, static_cast<uint32_t>(buffers.size() - 1), [&](uint32_t into, uint32_t from) {
      for (size_t i = 0; i < out.size(); ++i) buffers[into][i] += buffers[from][i];
      --alive;
    });
  }
  EXPECT_EQ(peak, peak_values(range, plan.lanes()));
  std::vector<const float*> mine;
  for (const TreeFold::Part& part : fold.parts()) mine.push_back(buffers[part.value].data());
  return GradientReducer(comm, plan, piece).reduce(mine, out);
}

TEST(LanePlan, lanes_are_dealt_contiguously_and_as_evenly_as_they_go) {
  const LanePlan plan = *LanePlan::make(20, 2, 4);
  EXPECT_EQ(plan.lanes(), 10u);
  EXPECT_EQ(plan.micro_steps(), 3u);
  EXPECT_EQ(plan.range(0), (LaneRange{0, 2}));
  EXPECT_EQ(plan.range(1), (LaneRange{2, 5}));
  EXPECT_EQ(plan.range(2), (LaneRange{5, 7}));
  EXPECT_EQ(plan.range(3), (LaneRange{7, 10}));
}

TEST(LanePlan, a_rank_may_have_no_lane_at_all) {
  const LanePlan plan = *LanePlan::make(2, 1, 3);
  EXPECT_EQ(plan.of(0).count() + plan.of(1).count() + plan.of(2).count(), 2u);
  EXPECT_EQ(plan.micro_steps(), 1u);
}

TEST(LanePlan, a_micro_batch_that_does_not_divide_the_batch_is_refused) {
  const auto plan = LanePlan::make(10, 4, 2);
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.error().message.find("batch.micro 4 does not divide batch.sequences 10"), std::string::npos);
}

TEST(TreeFold, an_aligned_share_leaves_one_subtree_and_needs_logarithmically_many_buffers) {
  EXPECT_EQ(subtrees({8, 16}, 32), (std::vector<TreeNode>{{3, 1}}));
  EXPECT_EQ(peak_values({8, 16}, 32), 4u);
  EXPECT_EQ(subtrees({3, 7}, 8), (std::vector<TreeNode>{{0, 3}, {1, 2}, {0, 6}}));
  EXPECT_TRUE(subtrees({5, 5}, 8).empty());
}

TEST(TreeFold, a_node_without_a_right_sibling_stands_for_its_parent) {
  EXPECT_EQ(subtrees({0, 3}, 3), (std::vector<TreeNode>{{2, 0}}));
  EXPECT_EQ(subtrees({4, 5}, 5), (std::vector<TreeNode>{{2, 1}}));
}

TEST(GradientReducer, the_sum_has_the_same_bits_for_every_number_of_ranks) {
  constexpr size_t kElements = 1001;
  for (const uint32_t lanes : {1u, 3u, 8u, 13u}) {
    const std::vector<float> expected = reference(0, std::bit_ceil(lanes), lanes, kElements);
    for (const uint32_t ranks : {1u, 2u, 3u, 4u, 8u}) {
      for (const size_t piece : {size_t{37}, size_t{1} << 20}) {
        const LanePlan plan = *LanePlan::make(lanes, 1, ranks);
        MemoryGroup group(ranks);
        std::vector<std::vector<float>> outs(ranks, std::vector<float>(kElements));
        std::vector<std::thread> threads;
        for (uint32_t rank = 0; rank < ranks; ++rank) {
          threads.emplace_back([&, rank] {
            auto comm = group.take(rank);
            EXPECT_TRUE(reduce_on(*comm, plan, piece, outs[rank]).ok());
            EXPECT_TRUE(comm->barrier().ok());
          });
        }
        for (std::thread& thread : threads) thread.join();
        for (uint32_t rank = 0; rank < ranks; ++rank) {
          ASSERT_EQ(std::memcmp(outs[rank].data(), expected.data(), kElements * sizeof(float)), 0)
              << lanes << " lanes, " << ranks << " ranks, rank " << rank << ", pieces of " << piece;
        }
      }
    }
  }
}

TEST(GradientReducer, a_lost_peer_is_an_error) {
  MemoryGroup group(2);
  auto comm = group.take(0);
  group.kill(1);
  const LanePlan plan = *LanePlan::make(2, 1, 2);
  std::vector<float> gradient(10);
  const float* mine[] = {gradient.data()};
  EXPECT_EQ(GradientReducer(*comm, plan).reduce(mine, gradient).error().code, Code::kUnavailable);
}

TEST(TreeSum, numbers_are_added_in_the_lanes_tree) {
  const double values[] = {1e16, 1, -1e16, 1, 1};
  EXPECT_EQ(tree_sum(values), ((1e16 + 1.0) + (-1e16 + 1.0)) + 1.0);
  EXPECT_EQ(tree_sum({}), 0);
}

TEST(Mesh, tensor_is_fastest_then_shard_then_replica) {
  const Grid grid{.replicas = 2, .shards = 3, .tensor = 2};
  EXPECT_EQ(Mesh(grid, 0).at(), (Coordinates{0, 0, 0}));
  EXPECT_EQ(Mesh(grid, 1).at(), (Coordinates{0, 0, 1}));
  EXPECT_EQ(Mesh(grid, 2).at(), (Coordinates{0, 1, 0}));
  EXPECT_EQ(Mesh(grid, 9).at(), (Coordinates{1, 1, 1}));
  for (uint32_t rank = 0; rank < grid.ranks(); ++rank) {
    const Mesh mesh(grid, rank);
    EXPECT_EQ(mesh.rank_of(mesh.at()), rank);
    EXPECT_EQ(mesh.group(MeshAxis::kShard)[mesh.at().shard], rank);
    EXPECT_EQ(mesh.group(MeshAxis::kReplica)[mesh.at().replica], rank);
    EXPECT_EQ(mesh.group(MeshAxis::kTensor)[mesh.at().tensor], rank);
  }
  EXPECT_EQ(Mesh(grid, 9).group(MeshAxis::kShard), (std::vector<uint32_t>{7, 9, 11}));
  EXPECT_EQ(Mesh(grid, 9).group(MeshAxis::kReplica), (std::vector<uint32_t>{3, 9}));
  EXPECT_EQ(Mesh(grid, 9).group(MeshAxis::kTensor), (std::vector<uint32_t>{8, 9}));
  EXPECT_EQ(Mesh(grid, 9).data_rank(), 4u);
}

TEST(GridSettings, replicas_are_what_is_left_of_the_ranks) {
  EXPECT_EQ(*GridSettings{}.grid(5), (Grid{5, 1, 1}));
  EXPECT_EQ(*(GridSettings{.shards = 4, .tensor = 2}.grid(16)), (Grid{2, 4, 2}));
  EXPECT_EQ(*(GridSettings{.shards = 4, .replicas = 2}.grid(8)), (Grid{2, 4, 1}));
}

TEST(GridSettings, a_grid_that_is_not_the_number_of_ranks_is_refused_with_a_remedy) {
  const auto uneven = GridSettings{.shards = 4, .tensor = 2}.grid(12);
  ASSERT_FALSE(uneven.ok());
  EXPECT_NE(uneven.error().message.find("parallel.shards 4 x parallel.tensor 2 = 8 does not divide the 12 ranks"),
            std::string::npos)
      << uneven.error().message;
  const auto fixed = GridSettings{.shards = 2, .replicas = 2}.grid(8);
  ASSERT_FALSE(fixed.ok());
  EXPECT_NE(fixed.error().message.find("takes 4 ranks, and there are 8 ranks; set replicas to 4 or auto"),
            std::string::npos)
      << fixed.error().message;
}

}  // namespace
}  // namespace pitcrew::trainer
