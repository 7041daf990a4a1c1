#include "agent/probe/lustre/lustre.hpp"

#include <gtest/gtest.h>

#include "agent/probe/lustre/parse.hpp"
#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::lustre {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

constexpr char kStats[] =
    "snapshot_time             1700000000.817348638 secs.nsecs\n"
    "read_bytes                500 samples [bytes] 4096 1048576 209715200 9999\n"
    "write_bytes               20 samples [bytes] 1 3366225 468230469\n"
    "read                      500 samples [usecs] 3 9000 1500000 77\n"
    "open                      12 samples [usecs] 1 2 30 40\n"
    "close                     10 samples [usecs] 1 2 20 40\n";

std::string import(const std::string& state, int timeouts) {
  return "import:\n    name: fsx-OST0000-osc-ffff8f2a1c3b5800\n    target: fsx-OST0000_UUID\n    state: " + state +
         "\n    connect_flags: [ write_grant, server_lock ]\n    connection:\n       failover_nids: [ 10.0.0.1@tcp ]\n"
         "       current_connection: 10.0.0.1@tcp\n       connection_attempts: 3\n    rpcs:\n       inflight: 2\n"
         "       unregistering: 0\n       timeouts: " +
         std::to_string(timeouts) +
         "\n       avg_waittime: 1203 usec\n    read_data_averages:\n       bytes_per_rpc: 1048576\n       "
         "usec_per_rpc: "
         "900\n    write_data_averages:\n       usec_per_rpc: 1800\n";
}

void add_client(const FakeHost& host, const std::string& root) {
  host.file(root + "/llite/fsx-ffff8f2a1c3b5800/stats", kStats);
  host.file(root + "/osc/fsx-OST0000-osc-ffff8f2a1c3b5800/import", import("FULL", 4));
  host.file(root + "/osc/fsx-OST0000-osc-ffff8f2a1c3b5800/state",
            "current_state: FULL\nstate_history:\n - [ 1699990000, CONNECTING ]\n - [ 1699990001, EVICTED ]\n - [ "
            "1699990002, FULL ]\n");
}

constexpr char kMount[] = "36 25 0:52 / /fsx rw,relatime shared:1 - lustre 10.0.0.1@tcp:/fsx rw,flock\n";

TEST(Lustre, has_nothing_to_say_where_it_is_not_mounted) {
  const FakeHost host;
  host.file("proc/self/mountinfo", "25 1 259:1 / / rw,noatime - ext4 /dev/root rw\n");
  const auto seen = LustreProbe(host.paths()).look(kNow);
  ASSERT_TRUE(seen) << seen.error().message;
  EXPECT_TRUE(seen->empty());
}

class EveryRoot : public testing::TestWithParam<std::string> {};

TEST_P(EveryRoot, reads_client_and_targets) {
  const FakeHost host;
  add_client(host, GetParam());
  const auto seen = LustreProbe(host.paths()).look(kNow);
  EXPECT_EQ(values_of(seen, "lustre.client", "fsx"),
            "metadata_calls=22 metadata_seconds=5e-05 read_bytes=209715200 read_calls=500 read_seconds=1.5 "
            "write_bytes=468230469 write_calls=20");
  EXPECT_EQ(values_of(seen, "lustre.target", "fsx-OST0000"),
            "attempts=3 connected=1 evictions=1 inflight=2 read_rpc_seconds=0.0009 state=FULL timeouts=4 "
            "wait_seconds=0.001203 write_rpc_seconds=0.0018");
}

INSTANTIATE_TEST_SUITE_P(Roots, EveryRoot,
                         testing::Values("proc/fs/lustre", "sys/fs/lustre", "sys/kernel/debug/lustre"),
                         [](const auto& info) { return "root" + std::to_string(info.index); });

TEST(Lustre, counts_evictions_that_come_and_not_those_that_it_has_counted) {
  const FakeHost host;
  add_client(host, "sys/kernel/debug/lustre");
  LustreProbe probe(host.paths());
  EXPECT_NE(values_of(probe.look(kNow), "lustre.target", "fsx-OST0000").find("evictions=1 "), std::string::npos);
  EXPECT_NE(values_of(probe.look(kNow), "lustre.target", "fsx-OST0000").find("evictions=1 "), std::string::npos);
  host.file("sys/kernel/debug/lustre/osc/fsx-OST0000-osc-ffff8f2a1c3b5800/state",
            "state_history:\n - [ 1699990001, EVICTED ]\n - [ 1700000500, EVICTED ]\n");
  host.file("sys/kernel/debug/lustre/osc/fsx-OST0000-osc-ffff8f2a1c3b5800/import", import("EVICTED", 5));
  const std::string values = values_of(probe.look(kNow), "lustre.target", "fsx-OST0000");
  EXPECT_NE(values.find("evictions=2 "), std::string::npos) << values;
  EXPECT_NE(values.find("connected=0 "), std::string::npos) << values;
}

TEST(Lustre, forgets_the_connections_of_mounts_that_are_gone) {
  const FakeHost host;
  LustreProbe probe(host.paths());
  for (int mount = 0; mount < 30; ++mount) {
    const std::string folder = "sys/kernel/debug/lustre/osc/fsx-OST0000-osc-ffff" + std::to_string(mount);
    host.file(folder + "/import", import("FULL", 0));
    host.file(folder + "/state", "state_history:\n - [ 1699990001, EVICTED ]\n");
    ASSERT_TRUE(probe.look(kNow + hours(2) * mount));
    host.remove(folder);
  }
  EXPECT_EQ(probe.counted(), 1u);
}

TEST(Lustre, an_idle_connection_is_well) {
  const FakeHost host;
  add_client(host, "proc/fs/lustre");
  host.file("proc/fs/lustre/osc/fsx-OST0000-osc-ffff8f2a1c3b5800/import", import("IDLE", 0));
  EXPECT_NE(values_of(LustreProbe(host.paths()).look(kNow), "lustre.target", "fsx-OST0000").find("connected=1"),
            std::string::npos);
}

TEST(Lustre, a_mounted_file_system_whose_counters_cannot_be_read_is_a_broken_probe) {
  const FakeHost host;
  host.file("proc/self/mountinfo", kMount);
  const auto seen = LustreProbe(host.paths()).look(kNow);
  ASSERT_FALSE(seen);
  EXPECT_NE(seen.error().message.find("mounted at /fsx"), std::string::npos);
}

TEST(LustreParse, takes_nothing_from_garbage) {
  EXPECT_TRUE(parse_stats("x y z\nread_bytes many samples [bytes]\n").empty());
  EXPECT_FALSE(parse_import("import:\n target: a\n"));
  EXPECT_TRUE(parse_state_history("- [ , ]\n ] , [ 5\n").empty());
  EXPECT_EQ(without_instance("scratch-data"), "scratch-data");
  EXPECT_EQ(without_instance("fsx-MDT0000-mdc-ffff8f2a1c3b5800"), "fsx-MDT0000");
}

}  // namespace
}  // namespace pitcrew::agent::lustre
