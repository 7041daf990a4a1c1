#include "operator/decide/node_loss.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

const Instant kNow(seconds(1'700'000'000));

std::vector<SilentNode> silent(std::initializer_list<int> at_seconds) {
  std::vector<SilentNode> nodes;
  for (const int at : at_seconds) nodes.push_back({"node-" + std::to_string(nodes.size()), kNow + seconds(at)});
  return nodes;
}

TEST(HerdRule, three_of_five_within_two_seconds_are_waited_for) {
  const Herd herd = judge_herd(2, silent({0, 1, 2}), kNow + seconds(10));
  EXPECT_TRUE(herd.waiting);
  EXPECT_EQ(herd.until, kNow + seconds(32));
}

TEST(HerdRule, two_nodes_are_no_herd_however_few_there_are) {
  EXPECT_FALSE(judge_herd(0, silent({0, 1}), kNow + seconds(10)).waiting);
}

TEST(HerdRule, exactly_half_is_no_herd) { EXPECT_FALSE(judge_herd(3, silent({0, 0, 0}), kNow + seconds(10)).waiting); }

TEST(HerdRule, nodes_that_fell_silent_one_after_another_are_no_herd) {
  EXPECT_FALSE(judge_herd(2, silent({0, 3, 6}), kNow + seconds(10)).waiting);
}

TEST(HerdRule, waiting_ends_after_thirty_seconds) {
  EXPECT_TRUE(judge_herd(2, silent({0, 0, 0}), kNow + seconds(29)).waiting);
  EXPECT_FALSE(judge_herd(2, silent({0, 0, 0}), kNow + seconds(30)).waiting);
}

TEST(HerdRule, waiting_ends_when_half_are_back) {
  EXPECT_FALSE(judge_herd(4, silent({0, 0, 0}), kNow + seconds(5)).waiting);
}

}  // namespace
}  // namespace pitcrew::control
