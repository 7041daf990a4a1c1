#include "operator/decide/rules.hpp"

#include <gtest/gtest.h>

#include "operator/decide/epoch.hpp"

namespace pitcrew::control {
namespace {

Verdict exited(int code, std::vector<std::string> log = {}) {
  Verdict verdict;
  verdict.exit_code = code;
  verdict.log = std::move(log);
  return verdict;
}

TEST(Rules, the_first_that_matches_wins) {
  const std::vector<api::RecoveryRule> rules{{{3}, "", api::RuleAction::kRestart},
                                             {{3, 4}, "", api::RuleAction::kFail}};
  EXPECT_EQ(match_rules(rules, exited(3))->action, api::RuleAction::kRestart);
  EXPECT_EQ(match_rules(rules, exited(4))->action, api::RuleAction::kFail);
  EXPECT_FALSE(match_rules(rules, exited(5)));
}

TEST(Rules, codes_and_pattern_of_one_rule_must_both_match) {
  const std::vector<api::RecoveryRule> rules{{{1}, "illegal memory (access|address)", api::RuleAction::kFail}};
  EXPECT_FALSE(match_rules(rules, exited(1, {"out of memory"})));
  EXPECT_FALSE(match_rules(rules, exited(2, {"an illegal memory access"})));
  EXPECT_TRUE(match_rules(rules, exited(1, {"first line", "an illegal memory access was encountered"})));
}

TEST(Rules, a_signal_matches_no_exit_code) {
  Verdict killed;
  EXPECT_FALSE(match_rules({{{9}, "", api::RuleAction::kFail}}, killed));
}

TEST(EpochPort, is_fresh_for_many_epochs_in_a_row) {
  std::set<uint32_t> ports;
  for (uint64_t number = 1; number <= 200; ++number) {
    const uint32_t port = epoch_port("job-uid", EpochNumber(number), 20'000, 29'999);
    EXPECT_GE(port, 20'000u);
    EXPECT_LE(port, 29'999u);
    EXPECT_TRUE(ports.insert(port).second) << "epoch " << number;
  }
}

}  // namespace
}  // namespace pitcrew::control
