#include <gtest/gtest.h>

#include "tests/simulation/world.hpp"

namespace pitcrew::simulation {
namespace {

std::string told(const World& world) {
  std::string text;
  for (const auto& violation : world.invariants().violations())
    text += violation.invariant + ": " + violation.what + "\n";
  return text;
}

TEST(Simulation, holds_its_invariants_under_the_first_seeds) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    World world({.seed = seed, .trace = {}, .operator_logs = false});
    world.run();
    EXPECT_TRUE(world.invariants().violations().empty()) << "pitcrew-simulation --seed " << seed << " --trace\n"
                                                         << told(world);
    EXPECT_GE(world.faults().size(), 8u);
  }
}

TEST(Simulation, runs_the_same_way_twice) {
  std::string traces[2];
  for (std::string& trace : traces) {
    World world({.seed = 7, .trace = [&](const std::string& line) { trace += line + "\n"; }, .operator_logs = true});
    world.run();
    trace += world.outcome();
  }
  EXPECT_FALSE(traces[0].empty());
  EXPECT_EQ(traces[0], traces[1]);
}

}  // namespace
}  // namespace pitcrew::simulation
