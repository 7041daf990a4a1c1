#include "agent/probe/efa/efa.hpp"

#include <gtest/gtest.h>

#include "agent/judge/builtin_policy.hpp"
#include "agent/judge/judge.hpp"
#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::efa {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

TEST(Efa, has_nothing_to_say_on_a_machine_without_it) {
  const FakeHost host;
  const auto seen = EfaProbe(host.paths(), 0).look(kNow);
  ASSERT_TRUE(seen);
  EXPECT_TRUE(seen->empty());
}

TEST(Efa, reads_count_port_and_command_queue_of_each_device) {
  const FakeHost host;
  host.efa_device("rdmap0s29");
  host.efa_device("rdmap16s29");
  host.efa_counter("rdmap0s29", "tx_bytes", 123456789012);
  host.efa_counter("rdmap0s29", "retrans_pkts", 5);
  host.efa_admin("rdmap16s29", "submitted_cmds", 12);
  host.efa_admin("rdmap16s29", "completed_cmds", 10);
  host.efa_admin("rdmap16s29", "no_completion_cmds", 1);
  const auto seen = EfaProbe(host.paths(), 2).look(kNow);
  EXPECT_EQ(values_of(seen, "efa.count"), "count=2 expected=2 type=2");
  EXPECT_EQ(values_of(seen, "efa.port", "rdmap0s29"),
            "impaired_remote_conn_events=0 rdma_read_bytes=0 rdma_read_wr_err=0 rdma_write_bytes=0 rdma_write_wr_err=0 "
            "retrans_bytes=0 retrans_pkts=5 retrans_timeout_events=0 rx_bytes=0 rx_drops=0 tx_bytes=123456789012 "
            "unresponsive_remote_events=0");
  EXPECT_EQ(values_of(seen, "efa.admin", "rdmap16s29"),
            "cmds_err=0 completed_cmds=10 keep_alive_rcvd=0 no_completion_cmds=1 outstanding=2 submitted_cmds=12");
}

TEST(Efa, is_not_any_other_rdma_device) {
  const FakeHost host;
  host.file("sys/class/infiniband/mlx5_0/device/vendor", "0x15b3");
  host.file("sys/class/infiniband/mlx5_0/device/device", "0x101e");
  EXPECT_EQ(values_of(EfaProbe(host.paths(), 1).look(kNow), "efa.count"), "count=0 expected=0 type=1");
}

TEST(Efa, an_old_driver_has_the_command_queue_among_the_ports_counters) {
  const FakeHost host;
  host.efa_device("efa_0");
  host.remove("sys/class/infiniband/efa_0/hw_counters");
  host.efa_counter("efa_0", "no_completion_cmds", 3);
  const auto seen = EfaProbe(host.paths(), 0).look(kNow);
  EXPECT_EQ(values_of(seen, "efa.admin", "efa_0"), "no_completion_cmds=3");
  EXPECT_EQ(values_of(seen, "efa.port", "efa_0").find("no_completion"), std::string::npos);
}

TEST(Efa, what_is_no_number_is_left_out_and_breaks_nothing) {
  const FakeHost host;
  host.efa_device("rdmap0s29");
  host.file("sys/class/infiniband/rdmap0s29/ports/1/hw_counters/rx_drops", "garbage");
  host.file("sys/class/infiniband/rdmap0s29/ports/1/hw_counters/Weird-Name", "1");
  const std::string values = values_of(EfaProbe(host.paths(), 1).look(kNow), "efa.port", "rdmap0s29");
  EXPECT_EQ(values.find("rx_drops"), std::string::npos);
  EXPECT_EQ(values.find("Weird"), std::string::npos);
}

TEST(Efa, a_device_without_a_driver_is_missing_and_still_on_the_bus) {
  const FakeHost host;
  host.efa_device("rdmap0s29");
  for (const char* address : {"0000:00:1d.0", "0000:10:1d.0"}) {
    host.file(std::string("sys/bus/pci/devices/") + address + "/vendor", "0x1d0f");
    host.file(std::string("sys/bus/pci/devices/") + address + "/device", "0xefa2");
  }
  const auto seen = EfaProbe(host.paths(), 2).look(kNow);
  EXPECT_EQ(values_of(seen, "efa.count"), "count=1 expected=2 on_pci=2 type=2");
}

TEST(Efa, a_device_that_vanishes_is_missing_and_one_that_was_never_asked_for_is_not) {
  const FakeHost host;
  host.efa_device("rdmap0s29");
  host.efa_device("rdmap16s29");
  EfaProbe probe(host.paths(), 32);
  EXPECT_EQ(values_of(probe.look(kNow), "efa.count"), "count=2 expected=2 type=32");
  host.remove("sys/class/infiniband/rdmap16s29");
  EXPECT_EQ(values_of(probe.look(kNow), "efa.count"), "count=1 expected=2 on_pci=0 type=32");
  host.efa_device("rdmap16s29");
  EXPECT_EQ(values_of(probe.look(kNow), "efa.count"), "count=2 expected=2 type=32");
}

TEST(Efa, a_silent_firmware_becomes_a_fault_and_an_old_counter_does_not) {
  const FakeHost host;
  host.efa_device("rdmap0s29");
  host.efa_admin("rdmap0s29", "no_completion_cmds", 9);
  EfaProbe probe(host.paths(), 1);
  History history;
  size_t raised = 0;
  const auto judged = [&](Duration after) {
    const auto seen = probe.look(kNow + after);
    Judgement judgement = judge(*seen, builtin_policy(), history, kNow + after);
    history = judgement.history;
    for (const Change& change : judgement.changes) raised += change.verdict.rule == "efa-firmware-silent";
  };
  judged(seconds(0));
  judged(seconds(10));
  EXPECT_EQ(raised, 0u) << "it stood at 9 before";
  host.efa_admin("rdmap0s29", "no_completion_cmds", 10);
  judged(seconds(20));
  host.efa_admin("rdmap0s29", "no_completion_cmds", 11);
  judged(seconds(30));
  EXPECT_EQ(raised, 1u);
}

}  // namespace
}  // namespace pitcrew::agent::efa
