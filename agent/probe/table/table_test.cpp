#include "agent/probe/table/table.hpp"

#include <cstdlib>
#include <set>

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

// Runs every probe once and gives what they saw, with how they did.
std::vector<Observation> look_once(const ProbeSettings& settings) {
  ProbeRunner runner(probe_tasks(settings));
  std::vector<Observation> seen = runner.poll(kNow);
  EXPECT_TRUE(runner.settle(seconds(60)));
  for (Observation& one : runner.poll(kNow + milliseconds(1))) seen.push_back(std::move(one));
  return seen;
}

TEST(ProbeTable, names_each_probe_once_with_a_rhythm_and_a_limit) {
  std::set<std::string> names;
  for (const ProbeTask& task : probe_tasks({})) {
    EXPECT_TRUE(names.insert(task.name).second) << task.name;
    EXPECT_GT(task.every, Duration(0)) << task.name;
    EXPECT_GT(task.limit, Duration(0)) << task.name;
  }
  EXPECT_GT(names.size(), probe_table().size());
}

TEST(ProbeTable, an_empty_machine_has_no_broken_probe_and_nothing_that_is_bad) {
  const FakeHost host;
  const auto seen = look_once({.paths = host.paths(), .nvml = "libpitcrew-has-no-such-library.so.1"});
  size_t reports = 0;
  for (const Observation& one : seen) {
    if (one.kind == kinds::kProbe) {
      ++reports;
      EXPECT_EQ(one.number("ok"), 1) << one.text;
    }
    EXPECT_FALSE(one.kind.starts_with("gpu.") || one.kind.starts_with("efa.")) << one.kind;
  }
  EXPECT_EQ(reports, probe_tasks({}).size());
}

TEST(ProbeTable, runs_configured_programs_as_probes) {
  const FakeHost host;
  const TempFolder folder;
  const std::string path = folder.write_program("check", "#!/bin/sh\nexit 1\n");
  const auto seen = look_once({.paths = host.paths(),
                               .nvml = "libpitcrew-has-no-such-library.so.1",
                               .programs = {{"ours", {path}, minutes(5), minutes(1)}}});
  EXPECT_EQ(values_of(seen, "exec.ours"), "problem=1");
}

TEST(ProbeTable, gpus_that_should_be_there_without_a_library_are_broken_probes_and_no_missing_gpus) {
  const FakeHost host;
  ProbeSettings settings{.paths = host.paths(), .nvml = "libpitcrew-has-no-such-library.so.1"};
  settings.machine = *find_instance_type("p5.48xlarge");
  size_t broken = 0;
  for (const Observation& one : look_once(settings)) {
    broken += one.kind == kinds::kProbe && one.number("ok") == 0;
    EXPECT_NE(one.kind, "gpu.count");
  }
  EXPECT_GE(broken, 10u);
}

}  // namespace
}  // namespace pitcrew::agent
