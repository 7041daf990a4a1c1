#include "agent/probe/node/node.hpp"

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::node {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

void add_procfs(const FakeHost& host) {
  host.file("proc/meminfo",
            "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\nHardwareCorrupted: 4 kB");
  host.file("proc/vmstat", "nr_free_pages 12\noom_kill 3");
  host.file("proc/loadavg", "0.20 0.18 0.12 2/1350 11206");
  host.file("proc/sys/kernel/pid_max", "4194304");
  host.file("proc/sys/kernel/threads-max", "2700");
  host.file("proc/sys/fs/file-nr", "5000\t0\t100000");
  host.file("proc/pressure/memory",
            "some avg10=1.00 avg60=2.50 avg300=0.00 total=12\nfull avg10=0.10 avg60=0.25 avg300=0.00 total=5");
}

TEST(NodePressure, reads_what_runs_out) {
  const FakeHost host;
  add_procfs(host);
  const auto seen = PressureProbe(host.paths()).look(kNow);
  EXPECT_EQ(values_of(seen, "node.memory"),
            "available_bytes=256000 available_percent=25 bytes=1024000 corrupted_bytes=4096 oom_kills=3");
  EXPECT_EQ(values_of(seen, "node.pids"), "limit=2700 threads=1350 used_percent=50");
  EXPECT_EQ(values_of(seen, "node.files"), "limit=100000 open=5000 used_percent=5");
  EXPECT_EQ(values_of(seen, "node.pressure"), "memory_full_percent=0.25 memory_some_percent=2.5");
}

TEST(NodePressure, leaves_out_what_this_kernel_does_not_have_and_what_is_garbage) {
  const FakeHost host;
  add_procfs(host);
  host.remove("proc/pressure");
  host.file("proc/loadavg", "x y");
  host.file("proc/sys/fs/file-nr", "1 0 0");
  const auto seen = PressureProbe(host.paths()).look(kNow);
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->size(), 1u) << "memory alone";
}

TEST(NodePressure, reads_this_machine) {
  const auto seen = PressureProbe(HostPaths()).look(kNow);
  ASSERT_TRUE(seen) << seen.error().message;
  EXPECT_NE(values_of(seen, "node.memory"), "-");
}

}  // namespace
}  // namespace pitcrew::agent::node
