// Grids whose bytes NCCL moves, where something goes wrong in the communicator of one of their groups.
#include <future>

#include "tests/contract/grid/grid_world.hpp"

namespace pitcrew::trainer {
namespace {

// A grid, and which of a rank's communicators its group's is.
struct Group {
  const char* name;
  GridSettings grid;
  uint32_t communicator;
};
constexpr uint32_t kRanks = 4, kCulprit = 3;
const Group kGroups[] = {{"gather", {.shards = 2}, 1},
                         {"reduce", {.shards = 2}, 2},
                         {"replica", {.shards = 2}, 3},
                         {"tensor", {.tensor = 2}, 2}};

class NcclGrid : public GridTraining, public ::testing::WithParamInterface<Group> {
 protected:
  TrainConfig config() const {
    TrainConfig config = tiny();
    config.model.layers = 2;
    config.steps = 4;
    return config;
  }
  Options options() const {
    return {.ranks = kRanks, .grid = GetParam().grid, .backend = Backend::kNccl, .each_step = {}};
  }
  std::string net() const { return "net " + std::to_string(kCulprit) + "/" + std::to_string(GetParam().communicator); }
  // Who is in the culprit's group beside it.
  uint32_t peer() const {
    const Grid grid = *GetParam().grid.grid(kRanks);
    const bool replicas = std::string(GetParam().name) == "replica";
    const MeshAxis axis = replicas ? MeshAxis::kReplica : grid.tensor > 1 ? MeshAxis::kTensor : MeshAxis::kShard;
    return Mesh(grid, kCulprit).group(axis)[0];
  }
  void expect_all_end(const World& world) {
    for (const Outcome& outcome : world.outcomes) EXPECT_EQ(outcome.exit_code, exit_code::kTryAgain) << outcome.message;
  }
};

INSTANTIATE_TEST_SUITE_P(Groups, NcclGrid, testing::ValuesIn(kGroups),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(NcclGrid, a_delay_changes_no_bit) {
  expect_done(run(config(), "quick", options()));
  const NcclFaults faults(net() + " rank * op 2 delay 100\n" + net() + " rank * op 5 delay 60\n");
  expect_done(run(config(), "slow", options()));
  EXPECT_EQ(log("slow"), log("quick"));
  EXPECT_TRUE(state("slow") == state("quick"));
}

TEST_P(NcclGrid, a_rank_whose_nccl_fails_is_named_by_its_group) {
  const NcclFaults faults(net() + " rank * op 3 error 3\n");
  const World world = run(config(), "run", options());
  expect_all_end(world);
  const std::string own = world.outcomes[kCulprit].message;
  EXPECT_NE(own.find(GetParam().name + std::string(" group of ranks")), std::string::npos) << own;
  EXPECT_NE(own.find("internal error"), std::string::npos) << own;
  EXPECT_EQ(world.outcomes[peer()].lost_peer, Rank(kCulprit)) << world.outcomes[peer()].message;
}

TEST_P(NcclGrid, an_asynchronous_error_ends_all_ranks_long_before_the_time_out) {
  const NcclFaults faults(net() + " rank * op 3 async 2\n");
  const auto began = std::chrono::steady_clock::now();
  const World world = run(config(), "run", options());
  EXPECT_LT(std::chrono::steady_clock::now() - began, minutes(2));
  expect_all_end(world);
  EXPECT_EQ(world.outcomes[peer()].lost_peer, Rank(kCulprit)) << world.outcomes[peer()].message;
}

TEST_P(NcclGrid, a_collective_that_hangs_ends_in_time_and_no_innocent_is_named_by_its_group) {
  const NcclFaults faults(net() + " rank * op 3 hang\n");
  TrainConfig impatient = config();
  impatient.collective_timeout = seconds(2);
  const World world = run(impatient, "run", options());
  expect_all_end(world);
  for (const uint32_t rank : {kCulprit, peer()}) {
    const auto& lost = world.outcomes[rank].lost_peer;
    EXPECT_TRUE(!lost || (rank != kCulprit && *lost == Rank(kCulprit)))
        << rank << " lost " << lost->value << ": " << world.outcomes[rank].message;
  }
}

// Ends when it is let go of.
struct Held {
  std::promise<void> released;
  ~Held() { released.set_value(); }
};

// A rank whose GPU stands still in the middle of a pass does not come to its collectives.
TEST_P(NcclGrid, a_rank_whose_device_stands_still_is_named_by_its_group) {
  auto held = std::make_shared<Held>();
  const auto released = held->released.get_future().share();
  std::vector<std::shared_ptr<Held>> holders(kRanks, held);
  holders[kCulprit].reset();
  held.reset();
  FlightRecorder recorder;
  Options stuck = options();
  stuck.given = [&](RankEnvironment& environment, TrainerServices& services) {
    if (environment.rank == peer()) services.recorder = &recorder;
    // The others' services end with them; then the device goes on.
    services.stop_asked = [asked = services.stop_asked, holder = std::move(holders[environment.rank])] {
      return asked();
    };
    if (environment.rank != kCulprit) return;
    services.device.before_work = [released, done = std::make_shared<std::atomic<int>>(0)](const std::string& stream) {
      if (stream == "compute" && ++*done == 150) released.wait();
    };
  };
  TrainConfig impatient = config();
  impatient.collective_timeout = seconds(2);
  const World world = run(impatient, "run", stuck);
  expect_all_end(world);
  const auto& lost = world.outcomes[peer()].lost_peer;
  if (std::string(GetParam().name) == "replica") {
    // Replicas add units while others are still computing, and then meet all ranks in host memory: the one that shares
    // the culprit's shards, waits for it and gives up may be missed there before the culprit is here.
    constexpr uint32_t kShardPeer = 2;
    EXPECT_EQ(world.outcomes[kShardPeer].lost_peer, Rank(kCulprit)) << world.outcomes[kShardPeer].message;
    EXPECT_TRUE(lost == Rank(kCulprit) || lost == Rank(kShardPeer)) << world.outcomes[peer()].message;
  } else {
    EXPECT_EQ(lost, Rank(kCulprit)) << world.outcomes[peer()].message;
  }
  // Where it waited is in its flight recorder.
  const std::string lines = recorder.text();
  const std::string group = GetParam().grid.tensor > 1 ? " tensor " : " gather ";
  EXPECT_NE(lines.find(group), std::string::npos) << lines;
  EXPECT_NE(lines.find(" bytes failed after "), std::string::npos) << lines;
}

// Over host memory too: what tensor ranks and shards said last is in the recorder.
TEST_F(GridTraining, collectives_of_groups_are_in_the_flight_recorder) {
  for (const GridSettings grid : {GridSettings{.shards = 2}, GridSettings{.tensor = 2}}) {
    FlightRecorder recorder;
    Options options{.ranks = 2, .grid = grid, .each_step = {}};
    options.given = [&](RankEnvironment& environment, TrainerServices& services) {
      if (environment.rank == 0) services.recorder = &recorder;
    };
    options.each_step = [](uint32_t rank, uint64_t step, Channels& channels) {
      for (size_t i = 0; rank == 1 && step == 2 && i < channels.size(); ++i) channels[i]->abort();
    };
    TrainConfig config = tiny();
    config.steps = 4;
    const World world = run(config, grid.tensor > 1 ? "tensor" : "shards", options);
    EXPECT_EQ(world.outcomes[0].lost_peer, Rank(1)) << world.outcomes[0].message;
    const std::string lines = recorder.text();
    EXPECT_NE(lines.find(" bytes failed after "), std::string::npos) << lines;
    for (const char* group : {" gather exchange ", " reduce exchange "})
      EXPECT_EQ(lines.find(group) != std::string::npos, grid.shards > 1) << group << lines;
    for (const char* group : {" tensor exchange ", " tensor all_gather "})
      EXPECT_EQ(lines.find(group) != std::string::npos, grid.tensor > 1) << group << lines;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
