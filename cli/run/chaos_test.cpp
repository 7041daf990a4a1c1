#include "cli/run/chaos.hpp"

#include <gtest/gtest.h>

namespace pitcrew::cli {
namespace {

TEST(Chaos, failures_come_in_the_order_of_their_steps_and_once_each) {
  auto plan = ChaosPlan::parse("hang@180,kill-node@60,kill-rank@120,kill-launcher@240");
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->due(Step(59)), std::nullopt);
  EXPECT_EQ(plan->due(Step(61)), (ChaosEvent{ChaosKind::kKillNode, Step(60)}));
  EXPECT_EQ(plan->due(Step(61)), std::nullopt);
  EXPECT_EQ(plan->due(Step(300))->kind, ChaosKind::kKillRank);
  EXPECT_EQ(plan->due(Step(300))->kind, ChaosKind::kHang);
  EXPECT_EQ(plan->due(Step(300))->kind, ChaosKind::kKillLauncher);
  EXPECT_TRUE(plan->empty());
}

TEST(Chaos, a_seed_gives_the_same_failures_again) {
  auto a = ChaosPlan::parse("random:7");
  auto b = ChaosPlan::parse("random:7");
  ASSERT_TRUE(a.ok());
  int made = 0;
  for (uint64_t step = 0; step < 2000; ++step) {
    const auto event = a->due(Step(step));
    EXPECT_EQ(event, b->due(Step(step)));
    made += event.has_value();
  }
  EXPECT_GE(made, 16);
  EXPECT_LE(made, 50);
}

TEST(Chaos, what_is_no_failure_is_refused_with_the_remedy) {
  for (const char* text :
       {"kill-node", "kill-node@", "kill-node@x", "explode@3", "random:", "random:x", "hang@1,", ","}) {
    const auto plan = ChaosPlan::parse(text);
    ASSERT_FALSE(plan.ok()) << text;
    EXPECT_NE(plan.error().message.find("write it like"), std::string::npos);
  }
  EXPECT_TRUE(ChaosPlan::parse("")->empty());
}

}  // namespace
}  // namespace pitcrew::cli
