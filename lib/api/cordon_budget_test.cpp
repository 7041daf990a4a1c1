#include "lib/api/cordon_budget.hpp"

#include <gtest/gtest.h>

namespace pitcrew::api {
namespace {

const Instant kNow = *parse_rfc3339("2026-03-01T00:10:00Z");

// Cordons of n0, n1, …, each `age` before kNow.
CordonBudget budget(const std::vector<Duration>& ages) {
  CordonBudget budget;
  budget.metadata.name = CordonBudget::kName;
  for (size_t i = 0; i < ages.size(); ++i) {
    budget.cordons["n" + std::to_string(i)] = {"", "uid-" + std::to_string(i), kNow - ages[i], "xid-79", i % 2 == 0};
  }
  return budget;
}

bool allowed(const CordonBudget& budget, const std::string& node, uint32_t agents) {
  return !cordon_refusal(budget, node, agents, kNow);
}

TEST(CordonBudget, three_nodes_may_always_be_cordoned) {
  EXPECT_TRUE(allowed(budget({}), "n9", 1));
  EXPECT_TRUE(allowed(budget({seconds(1), seconds(2)}), "n9", 3));
  EXPECT_FALSE(allowed(budget({seconds(1), seconds(2), seconds(3)}), "n9", 3));
}

TEST(CordonBudget, more_than_three_are_allowed_up_to_a_fifth_of_the_nodes) {
  const CordonBudget three = budget({seconds(1), seconds(2), seconds(3)});
  EXPECT_FALSE(allowed(three, "n9", 19));
  EXPECT_TRUE(allowed(three, "n9", 20));
  EXPECT_FALSE(allowed(three, "n9", 0)) << "where the number of nodes isn't known";
  EXPECT_EQ(cordon_refusal(three, "n9", 19, kNow),
            "with n9, 4 of 19 nodes would have been cordoned within 5m; CordonBudget default allows 3, or 20 % where "
            "that is more");
}

TEST(CordonBudget, what_is_older_than_the_window_counts_no_more) {
  EXPECT_TRUE(allowed(budget({seconds(1), seconds(2), minutes(5)}), "n9", 4));
  EXPECT_FALSE(allowed(budget({seconds(1), seconds(2), minutes(5) - seconds(1)}), "n9", 4));
  EXPECT_FALSE(allowed(budget({seconds(1), seconds(2), -seconds(20)}), "n9", 4)) << "another node's clock is ahead";
  EXPECT_EQ(expired_cordons(budget({seconds(1), minutes(6), minutes(5)}), kNow),
            (std::vector<std::string>{"n1", "n2"}));
}

TEST(CordonBudget, a_node_counts_once) { EXPECT_TRUE(allowed(budget({seconds(1), seconds(2), seconds(3)}), "n1", 4)); }

TEST(CordonBudget, its_limits_are_peoples) {
  CordonBudget strict = budget({seconds(1)});
  strict.spec = {.max_nodes = 1, .max_fraction = 0, .window = minutes(1)};
  EXPECT_FALSE(allowed(strict, "n9", 1000));
  strict.spec.max_nodes = 0;
  EXPECT_FALSE(allowed(CordonBudget{.metadata = strict.metadata, .spec = strict.spec}, "n9", 1000));
}

TEST(CordonBudget, reads_back_what_it_writes) {
  CordonBudget written = budget({seconds(1), minutes(1)});
  written.cordons["n0"].provider_id = "aws:///us-east-2b/i-0abc";
  written.spec = {.max_nodes = 5, .max_fraction = 0.1, .window = minutes(7)};
  const auto again = CordonBudget::decode(written.encode());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, written);
  const auto defaults = CordonBudget::decode(
      {{"apiVersion", "pitcrew.dev/v1alpha1"}, {"kind", "CordonBudget"}, {"metadata", {{"name", "default"}}}});
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_EQ(defaults->spec, CordonBudgetSpec{});
}

TEST(CordonBudget, says_what_is_wrong_and_what_to_do) {
  Json json = budget({seconds(1)}).encode();
  json["spec"] = {{"maxFraction", 20}, {"window", "1s"}, {"maxNode", 3}};
  json["status"]["cordons"]["n0"].erase("time");
  EXPECT_EQ(CordonBudget::decode(json).error().message,
            "CordonBudget default: spec.maxNode: unknown field; did you mean 'maxNodes'?; "
            "status.cordons.n0.time: is missing; spec.maxFraction: must be from 0 to 1, a share of the nodes that have "
            "an agent; spec.window: must be from 10s to 24h");
}

}  // namespace
}  // namespace pitcrew::api
