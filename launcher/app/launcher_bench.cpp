// What a launcher costs while its ranks train and nothing happens: `pitcrew_launcher_bench [SECONDS]` prints RssAnon
// and the share of a core, of the launcher alone, with the channel connected, eight ranks (idle, then stepping every
// 100 ms) and two neighbours that are pinged and ping.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "launcher/supervise/proc.hpp"
#include "launcher/testing/fake_operator.hpp"

namespace {

using namespace pitcrew;
using namespace pitcrew::launcher;
using namespace pitcrew::api::channel;

double cpu_seconds(pid_t pid) {
  const std::string stat = read_proc("/proc/" + std::to_string(pid) + "/stat");
  unsigned long user = 0, system = 0;
  sscanf(stat.c_str() + stat.rfind(')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int measured_seconds = 60;

TEST(Launcher, costs_little_while_ranks_train) {
  const std::string root = launcher::testing::make_temporary_folder();
  net::AsioLoop loop;
  launcher::testing::FakeOperator op(loop);
  for (const auto& [what, command] :
       {std::pair<const char*, std::vector<std::string>>{"idle", {PITCREW_TEST_RANK, "sleep"}},
        {"stepping", {PITCREW_TEST_RANK, "train", "100", "1000000"}}}) {
    std::vector<std::unique_ptr<launcher::testing::Pod>> pods;
    launcher::testing::EpochBuilder builder;
    builder.processes = 8;
    for (const char* name : {"a", "b", "c"}) {
      pods.push_back(std::make_unique<launcher::testing::Pod>(loop, op, root, std::string(what) + name));
      pods.back()->start(command, {}, 8);
      builder.pods.push_back(op.expect<Hello>(pods.back()->name()).value_or(Hello{}));
    }
    for (uint32_t i = 0; i < pods.size(); ++i) op.send(pods[i]->name(), builder.for_slot(i));
    const pid_t pid = pods[0]->pid();
    op.wait([] { return false; }, seconds(5));
    const double before = cpu_seconds(pid);
    op.wait([] { return false; }, seconds(measured_seconds));
    printf("%s: RssAnon %.2f MB, %.3f %% of a core over %d s\n", what, static_cast<double>(anonymous_memory(pid)) / 1e6,
           100 * (cpu_seconds(pid) - before) / measured_seconds, measured_seconds);
  }
  EXPECT_EQ(system(("rm -rf " + root).c_str()), 0);
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc > 1) measured_seconds = std::max(1, atoi(argv[1]));
  return RUN_ALL_TESTS();
}
