#include "agent/probe/kernel_log/parse.hpp"

#include <gtest/gtest.h>

namespace pitcrew::agent::kernel_log {
namespace {

// "kind code device name=value …" of a line, or "-".
std::string read(std::string_view line) {
  const auto found = parse(line);
  if (!found) return "-";
  std::string text = found->kind;
  if (found->code) text += " " + std::to_string(*found->code);
  if (!found->device.empty()) text += " " + found->device;
  for (const auto& [name, value] : found->values) text += " " + name + "=" + to_string(value);
  return text;
}

TEST(KernelLogParse, reads_xids_in_the_forms_that_drivers_write) {
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
            "xid 79 0000:05:00.0");
  EXPECT_EQ(read("NVRM: Xid (0000:03:00): 14, Channel 00000001"), "xid 14 0000:03:00.0");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:B9:00): 31, pid=79749, name=exe, Ch 0000000a, intr 00000000. MMU Fault"),
            "xid 31 0000:b9:00.0 name=exe pid=79749");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."), "xid 79 0000:01:00.0");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:01:00): 43, pid=1234, Ch 00000010"), "xid 43 0000:01:00.0 pid=1234");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:01:00): 94, pid=1234, name=python3, Contained: CE User Channel (0x9). RST: No"),
            "xid 94 0000:01:00.0 name=python3 pid=1234");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:01:00): 172"), "xid 172 0000:01:00.0");
}

TEST(KernelLogParse, reads_what_a_graphics_exception_names) {
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:01:00): 13, pid=12, name=a, Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): "
                 "Out Of Range Address"),
            "xid 13 0000:01:00.0 gpc=1 name=a pid=12 sm=0 tpc=3");
}

TEST(KernelLogParse, reads_the_seven_registers_of_an_nvlink_error) {
  EXPECT_EQ(
      read("NVRM: Xid (PCI:0003:00:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link "
           "14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0xffffffff)"),
      "xid 74 0003:00:00.0 link=14 reg0=0 reg1=0 reg2=65536 reg3=0 reg4=0 reg5=0 reg6=4294967295");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:65:00): 74, pid=<n/a>, name=<unknown>, NVLink: fatal error detected on link 2"),
            "xid 74 0000:65:00.0 link=2");
}

TEST(KernelLogParse, decodes_nvlink_5_by_unit_and_status) {
  EXPECT_EQ(read("NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 "
                 "0x00000000 0x00000000 0x00000000 0x00000000)"),
            "xid 149 0009:01:00.0 injected=0 intrinfo=34874822 investigate=peer link=1 resolution=reset severity=Fatal "
            "status=0 unit=NETIR_LINK_EVT");
  EXPECT_EQ(read("NVRM: Xid (PCI:0009:01:00): 145, RLW_REMAP Nonfatal XC1 i0 Link -1 (0x00000082 0x00000004 0x0 0x0)"),
            "xid 145 0009:01:00.0 injected=0 intrinfo=130 investigate=support resolution=recovery-action "
            "severity=Non-fatal status=4 unit=RLW_REMAP");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:00:1e): 149, NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0000000a]"),
            "xid 149 0000:00:1e.0 injected=2 intrinfo=10 link=1 resolution=unknown severity=Fatal unit=NETIR_LINK_EVT");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:00:1e): 146, something else"),
            "xid 146 0000:00:1e.0 resolution=unknown unit=something");
}

TEST(KernelLogParse, reads_the_drivers_recommended_action) {
  EXPECT_EQ(
      read("NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),
      "xid 154 0008:01:00.0 action=1");
  EXPECT_EQ(
      read("NVRM: Xid (PCI:0008:01:00): 154, pid=1, name=x, GPU recovery action changed from 0x0 (None) to 0x2 (OS "
           "Reboot)"),
      "xid 154 0008:01:00.0 action=2 name=x pid=1");
}

TEST(KernelLogParse, reads_switch_errors) {
  EXPECT_EQ(
      read("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)"),
      "sxid 12028 0000:c1:00.0 link=32 severity=Non-fatal");
  EXPECT_EQ(read("nvidia-nvswitch0: SXid (PCI:0000:59:00.0): 23001, Fatal, Link 12 Always Fatal"),
            "sxid 23001 0000:59:00.0 link=12 severity=Fatal");
  EXPECT_EQ(read("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal"), "-");
}

TEST(KernelLogParse, reads_fallen_off_the_bus_beside_the_xid) {
  EXPECT_EQ(read("NVRM: GPU 0000:b9:00.0: GPU has fallen off the bus."), "kernel.gpu_lost 0000:b9:00.0");
  EXPECT_EQ(
      read("NVRM: The NVIDIA GPU 0000:b9:00.0 (PCI ID: 10de:2330) installed in this system has fallen off the bus "
           "and is not responding to commands."),
      "kernel.gpu_lost 0000:b9:00.0");
}

TEST(KernelLogParse, reads_network_drivers) {
  EXPECT_EQ(read("efa 0000:50:00.0: The device didn't send any completion for admin cmd CREATE_QP(1) status 0"),
            "kernel.efa 0000:50:00.0 fatal=1 what=admin-timeout");
  EXPECT_EQ(read("infiniband rdmap80s0: Failed to process command CREATE_AH (opcode 8) comp_status 7 err -22"),
            "kernel.efa rdmap80s0 fatal=0 what=admin-failed");
  EXPECT_EQ(read("infiniband mlx5_0: Failed to process command"), "-");
  EXPECT_EQ(read("efa 0000:50:00.0: enabling device (0010 -> 0012)"), "-");
  EXPECT_EQ(read("ena 0000:00:05.0 eth0: Keep alive watchdog timeout."), "kernel.ena 0000:00:05.0 what=keep-alive");
}

TEST(KernelLogParse, reads_memory_tasks_and_processors) {
  EXPECT_EQ(read("Out of memory: Killed process 4242 (python3) total-vm:1kB"),
            "kernel.oom cgroup=0 name=python3 pid=4242");
  EXPECT_EQ(read("Memory cgroup out of memory: Killed process 7 (a) total-vm:1kB"), "kernel.oom cgroup=1 name=a pid=7");
  EXPECT_EQ(read("INFO: task kworker/u:1:77 blocked for more than 122 seconds."),
            "kernel.hung_task name=kworker/u:1 pid=77 seconds=122");
  EXPECT_EQ(read("watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [python3:42]"), "kernel.lockup");
  EXPECT_EQ(read("BUG: kernel NULL pointer dereference, address: 0000000000000008"), "kernel.bug");
  EXPECT_EQ(read("mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 4: b200000000070f0f"),
            "kernel.mce fatal=1");
  EXPECT_EQ(read("{1}[Hardware Error]: event severity: corrected"), "kernel.mce fatal=0");
  EXPECT_EQ(read("EDAC MC0: 1 UE memory read error on CPU_SrcID#0"), "kernel.mce fatal=1");
  EXPECT_EQ(read("EDAC MC0: 1 CE memory read error on CPU_SrcID#0"), "kernel.mce fatal=0");
}

TEST(KernelLogParse, reads_file_systems_and_disks) {
  EXPECT_EQ(read("EXT4-fs error (device nvme0n1p1): ext4_find_entry:1455: inode #2: comm ls: reading directory"),
            "kernel.filesystem nvme0n1p1 fs=ext4 what=error");
  EXPECT_EQ(read("EXT4-fs (nvme0n1p1): Remounting filesystem read-only"),
            "kernel.filesystem nvme0n1p1 fs=ext4 what=read-only");
  EXPECT_EQ(read("EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode."), "-");
  EXPECT_EQ(read("XFS (dm-0): Filesystem has been shut down due to log error (0x2)."),
            "kernel.filesystem dm-0 fs=xfs what=shutdown");
  EXPECT_EQ(read("XFS (nvme1n1): Metadata corruption detected at xfs_agf_read_verify"),
            "kernel.filesystem nvme1n1 fs=xfs what=error");
  EXPECT_EQ(read("XFS (nvme1n1): Mounting V5 Filesystem"), "-");
  EXPECT_EQ(read("nvme nvme1: I/O 23 QID 4 timeout, aborting"), "kernel.nvme nvme1 what=timeout");
  EXPECT_EQ(read("nvme nvme1: Removing after probe failure status: -19"), "kernel.nvme nvme1 what=dead");
  EXPECT_EQ(read("blk_update_request: I/O error, dev nvme1n1, sector 2048 op 0x0:(READ)"),
            "kernel.nvme nvme1n1 what=error");
  EXPECT_EQ(read("I/O error, dev sda, sector 2048"), "-");
  EXPECT_EQ(read("LustreError: 167-0: fs0-MDT0000-mdc-ffff8881: This client was evicted by fs0-MDT0000; in progress"),
            "kernel.lustre fs0-MDT0000 what=evicted");
  EXPECT_EQ(read("Lustre: fs0-OST0001-osc-ffff: Connection to fs0-OST0001 (at 10.0.0.7@tcp) was lost; in progress"),
            "kernel.lustre fs0-OST0001 what=lost");
}

TEST(KernelLogParse, takes_nothing_from_lines_that_only_look_alike) {
  EXPECT_EQ(read(""), "-");
  EXPECT_EQ(read("NVRM: Xid error: xyz, invalid data"), "-");
  EXPECT_EQ(read("NVRM: Xid (invalid): 79, some error"), "-");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:05:00): 99999999999, x"), "-");
  EXPECT_EQ(read("NVRM: Xid (PCI:0000:05:00"), "-");
  EXPECT_EQ(read("audit: user said NVRM: Xid (PCI:0000:05:00): 79"), "-");
  EXPECT_EQ(read("python3[4242]: NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus."), "-");
}

TEST(KernelLogParse, keeps_its_text_printable_and_short) {
  const auto found = parse("NVRM: Xid (PCI:0000:05:00): 79, \x1b[31m" + std::string(5000, '\xff'));
  ASSERT_TRUE(found);
  EXPECT_LE(found->text.size(), 256u);
  for (const char c : found->text) EXPECT_TRUE(c >= 0x20 && c <= 0x7e);
}

}  // namespace
}  // namespace pitcrew::agent::kernel_log
