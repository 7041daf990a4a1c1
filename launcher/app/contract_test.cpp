#include "launcher/app/contract.hpp"

#include <cstdlib>
#include <limits>

#include <gtest/gtest.h>

#include "launcher/app/metrics_text.hpp"
#include "launcher/app/outbox.hpp"
#include "launcher/app/rank_environment.hpp"
#include "launcher/app/run_state.hpp"
#include "launcher/testing/fake_operator.hpp"

namespace pitcrew::launcher {
namespace {

std::vector<std::string> good_environment() {
  return {"PITCREW_JOB_UID=u",        "PITCREW_POD_NAME=p",      "PITCREW_POD_UID=pu",
          "PITCREW_POD_NAMESPACE=ns", "PITCREW_POD_IP=10.0.0.7", "PITCREW_NODE_NAME=n",
          "PITCREW_PROCESSES=8",      "PITCREW_RUN_FOLDER=/tmp", "PITCREW_MEMORY_FOLDER=/no/such/folder"};
}

TEST(Contract, is_read_with_its_defaults) {
  const auto contract = read_contract({"python", "train.py"}, good_environment());
  ASSERT_TRUE(contract) << contract.error().message;
  EXPECT_EQ(contract->processes, 8u);
  EXPECT_EQ(contract->channel_file, "/pitcrew/channel/channel.json");
  EXPECT_EQ(contract->token_file, "/pitcrew/token/token");
  EXPECT_EQ(contract->memory_folder, "") << "no folder, no memory tier";
  EXPECT_EQ(contract->metrics_port, 0);
  EXPECT_EQ(contract->peer_copy_mb, 0u);
  auto capped = good_environment();
  capped.push_back("LAUNCHER_PEER_COPY_MB_PER_SECOND=250");
  EXPECT_EQ(read_contract({"true"}, capped)->peer_copy_mb, 250u);
}

TEST(Contract, everything_that_is_wrong_is_said_at_once) {
  auto environment = good_environment();
  environment[0] = "PITCREW_JOB_UID=";
  environment[6] = "PITCREW_PROCESSES=eight";
  environment.push_back("PITCREW_PATH_MAP=[1]");
  environment.push_back("PITCREW_METRICS_PORT=70000");
  environment.push_back("LAUNCHER_PEER_COPY_MB_PER_SECOND=fast");
  const auto contract = read_contract({}, environment);
  ASSERT_FALSE(contract);
  for (const char* word : {"PITCREW_JOB_UID", "'eight'", "PITCREW_PATH_MAP", "'70000'", "'fast'", "no command"}) {
    EXPECT_NE(contract.error().message.find(word), std::string::npos) << word;
  }
}

TEST(PathMap, replaces_the_longest_prefix_that_ends_at_a_folder) {
  const std::map<std::string, std::string> map{{"/ckpt", "/a"}, {"/ckpt/deep", "/b"}, {"/data/", "/c"}};
  EXPECT_EQ(map_path(map, "/ckpt/x"), "/a/x");
  EXPECT_EQ(map_path(map, "/ckpt"), "/a");
  EXPECT_EQ(map_path(map, "/ckpt/deep/x"), "/b/x");
  EXPECT_EQ(map_path(map, "/ckpt2/x"), "/ckpt2/x");
  EXPECT_EQ(map_path(map, "/data/x"), "/c/x");
  EXPECT_EQ(map_path(map, "s3://bucket"), "s3://bucket");
  EXPECT_EQ(map_path({}, "/x"), "/x");
}

TEST(Table, that_makes_no_sense_for_the_pod_is_refused) {
  api::channel::Epoch epoch;
  EXPECT_FALSE(own_entry(epoch, 1)) << "no slot";
  epoch.slot = Slot(1);
  epoch.world_size = 16;
  epoch.table = {{.slot = Slot(0), .first_rank = Rank(0), .ranks = 8},
                 {.slot = Slot(1), .first_rank = Rank(8), .ranks = 8}};
  EXPECT_TRUE(own_entry(epoch, 8));
  EXPECT_FALSE(own_entry(epoch, 4)) << "another number of ranks";
  epoch.world_size = 15;
  EXPECT_FALSE(own_entry(epoch, 8)) << "beyond the world";
}

TEST(RankEnvironment, a_step_under_suspicion_is_told_and_an_outer_one_is_not) {
  Contract contract;
  contract.environment = {"PITCREW_REPLAY={\"step\":7}", "HOME=/"};
  api::channel::Epoch epoch;
  epoch.slot = Slot(0);
  epoch.world_size = 1;
  epoch.table = {{.slot = Slot(0), .first_rank = Rank(0), .ranks = 1}};
  const auto value = [&]() -> std::string {
    for (const std::string& variable : rank_environment(contract, epoch, {"/progress", "/socket"}, 0))
      if (variable.starts_with("PITCREW_REPLAY=")) return variable.substr(15);
    return "";
  };
  EXPECT_EQ(value(), "");
  epoch.replay = ReplayPoint{Step(42), Rank(0), "b", "d1", false};
  const auto told = parse_replay_point(*parse_json(value()));
  ASSERT_TRUE(told);
  EXPECT_EQ(*told, *epoch.replay);
}

TEST(Outbox, keeps_what_matters_bounded) {
  using namespace api::channel;
  Outbox outbox;
  for (uint64_t step = 0; step < 100; ++step) outbox.keep(Saved{.step = Step(step)});
  ASSERT_EQ(outbox.messages().size(), 1u);
  EXPECT_EQ(std::get<Saved>(outbox.messages().back()).step, Step(99));
  outbox.keep(Saved{.step = Step(1), .durable = true, .request = "r"});
  outbox.keep(Saved{.step = Step(2), .durable = true});
  outbox.keep(Saved{.step = Step(3), .durable = true});
  EXPECT_EQ(outbox.messages().size(), 3u) << "memory, the answer, the newest durable one";
  for (uint32_t rank = 0; rank < 1000; ++rank) outbox.keep(Exited{.rank = Rank(rank)});
  EXPECT_EQ(outbox.messages().size(), Outbox::kMost);
  outbox.clear();
  EXPECT_TRUE(outbox.messages().empty());
}

TEST(RunState, is_found_again_and_damage_is_nothing) {
  const std::string folder = testing::make_temporary_folder();
  EXPECT_EQ(RunState::load(folder).seen, EpochId{});
  RunState state;
  state.seen = {Term(3), EpochNumber(7)};
  for (int i = 0; i < 10; ++i) state.rhythm.step_took(seconds(2));
  ASSERT_TRUE(state.save(folder));
  const RunState again = RunState::load(folder);
  EXPECT_EQ(again.seen, state.seen);
  EXPECT_EQ(again.rhythm.save(), state.rhythm.save());
  EXPECT_EQ(system(("echo '{\"term\":' > " + folder + "/state.json").c_str()), 0);
  EXPECT_EQ(RunState::load(folder).seen, EpochId{});
  EXPECT_EQ(system(("rm -rf " + folder).c_str()), 0);
}

TEST(Metrics, escape_what_programs_name) {
  MetricsInput input;
  input.first_rank = Rank(8);
  input.ranks.resize(1);
  input.ranks[0].line.updates = 1;
  input.ranks[0].line.loss = std::numeric_limits<double>::quiet_NaN();
  input.gauges = {{{"grad\"norm\\", 1.5}}};
  input.stalls = 2;
  const std::string text = metrics_text(input);
  EXPECT_NE(text.find("pitcrew_rank_gauge{rank=\"8\",name=\"grad\\\"norm\\\\\"} 1.5\n"), std::string::npos) << text;
  EXPECT_NE(text.find("pitcrew_rank_loss{rank=\"8\"} NaN\n"), std::string::npos);
  EXPECT_NE(text.find("# TYPE pitcrew_stalls_total counter\npitcrew_stalls_total 2\n"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::launcher
