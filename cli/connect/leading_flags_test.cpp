#include "cli/connect/leading_flags.hpp"

#include <gtest/gtest.h>

namespace pitcrew::cli {
namespace {

using Words = std::vector<std::string>;

TEST(LeadingFlags, go_behind_the_command) {
  EXPECT_EQ(with_flags_behind({"-n", "team-a", "status", "llama"}), (Words{"status", "llama", "-n", "team-a"}));
  EXPECT_EQ(with_flags_behind({"--context=dev", "-n", "a", "checkpoint", "now", "llama"}),
            (Words{"checkpoint", "now", "llama", "--context=dev", "-n", "a"}));
}

TEST(LeadingFlags, other_words_stay_where_they_are) {
  EXPECT_EQ(with_flags_behind({"status", "llama", "-n", "a"}), (Words{"status", "llama", "-n", "a"}));
  EXPECT_EQ(with_flags_behind({"--version"}), (Words{"--version"}));
  EXPECT_EQ(with_flags_behind({"-n"}), (Words{"-n"}));
  EXPECT_EQ(with_flags_behind({"-n", "a"}), (Words{"-n", "a"}));
  EXPECT_EQ(with_flags_behind({"-n", "a", "run", "--", "x"}), (Words{"-n", "a", "run", "--", "x"}));
}

TEST(LeadingFlags, of_words_that_are_being_typed_say_which_cluster) {
  const ClusterFlags flags = cluster_flags_in({"status", "--context=dev", "-n", "team-a", "lla"});
  EXPECT_EQ(flags.ns, "team-a");
  EXPECT_EQ(flags.context, "dev");
  EXPECT_EQ(flags.kubeconfig, "");
  EXPECT_EQ(cluster_flags_in({"status", "-n"}).ns, "");
}

}  // namespace
}  // namespace pitcrew::cli
