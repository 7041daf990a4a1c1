#include "launcher/supervise/torch_environment.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

TEST(TorchEnvironment, has_torchruns_names) {
  const auto variables = torch_variables({.rank = Rank(13),
                                          .local_rank = 5,
                                          .local_world_size = 8,
                                          .world_size = 16,
                                          .group_rank = 1,
                                          .group_world_size = 2,
                                          .master_address = "10.0.0.7",
                                          .master_port = 29501,
                                          .run_id = "uid-1",
                                          .epoch = 4});
  const std::map<std::string, std::string> expected{{"RANK", "13"},
                                                    {"LOCAL_RANK", "5"},
                                                    {"WORLD_SIZE", "16"},
                                                    {"LOCAL_WORLD_SIZE", "8"},
                                                    {"GROUP_RANK", "1"},
                                                    {"GROUP_WORLD_SIZE", "2"},
                                                    {"ROLE_NAME", "default"},
                                                    {"ROLE_RANK", "13"},
                                                    {"ROLE_WORLD_SIZE", "16"},
                                                    {"MASTER_ADDR", "10.0.0.7"},
                                                    {"MASTER_PORT", "29501"},
                                                    {"TORCHELASTIC_RUN_ID", "uid-1"},
                                                    {"TORCHELASTIC_RESTART_COUNT", "3"},
                                                    {"TORCHELASTIC_MAX_RESTARTS", "2147483647"},
                                                    {"TORCHELASTIC_USE_AGENT_STORE", "False"}};
  EXPECT_EQ(variables, expected);
}

TEST(TorchEnvironment, replaces_what_was_inherited_and_keeps_the_rest) {
  const auto merged = merge_environment({"PATH=/bin", "RANK=7", "OMP_NUM_THREADS=4", "ODD"}, {{"RANK", "0"}},
                                        {{"OMP_NUM_THREADS", "1"}, {"OTHER", "x"}});
  auto sorted = merged;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(sorted, (std::vector<std::string>{"ODD", "OMP_NUM_THREADS=4", "OTHER=x", "PATH=/bin", "RANK=0"}));
}

TEST(TorchEnvironment, one_thread_per_rank_is_the_default_for_several_ranks_alone) {
  EXPECT_EQ(torch_defaults({.local_world_size = 8}).at("OMP_NUM_THREADS"), "1");
  EXPECT_FALSE(torch_defaults({.local_world_size = 1}).contains("OMP_NUM_THREADS"));
}

}  // namespace
}  // namespace pitcrew::launcher
