#include "agent/probe/disk/disk.hpp"

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::disk {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

constexpr char kMounts[] =
    "25 1 259:1 / / rw,noatime shared:1 - ext4 /dev/nvme0n1p1 rw,discard\n"
    "26 25 0:22 / /proc rw,nosuid - proc proc rw\n"
    "40 25 259:1 /var/lib /var/lib/kubelet/bind ro,noatime - ext4 /dev/nvme0n1p1 rw,discard\n"
    "41 25 259:9 / /mnt/my\\040disk rw - xfs /dev/nvme1n1 rw,attr2\n"
    "42 25 7:0 / /snap/x ro - squashfs /dev/loop0 ro\n"
    "broken line\n";

Result<Space> fixed_space(const std::string& path) {
  if (path.ends_with("my disk")) return Space{1000, 200, 100, 0, 0};
  return Space{1000, 500, 500, 100, 25};
}

TEST(Mounts, are_read_with_their_blanks_and_both_kinds_of_read_only) {
  const auto mounts = parse_mountinfo(kMounts);
  ASSERT_EQ(mounts.size(), 5u);
  EXPECT_EQ(mounts[3].point, "/mnt/my disk");
  EXPECT_TRUE(mounts[2].mount_read_only);
  EXPECT_FALSE(mounts[2].system_read_only);
  EXPECT_TRUE(mounts[4].system_read_only);
}

TEST(DiskSpace, is_told_once_for_each_local_file_system) {
  const FakeHost host;
  host.file("proc/1/mountinfo", kMounts);
  const auto seen = SpaceProbe(host.paths(), fixed_space).look(kNow);
  ASSERT_TRUE(seen) << seen.error().message;
  ASSERT_EQ(seen->size(), 2u);
  EXPECT_EQ(values_of(seen, "disk.space", "/"),
            "available_bytes=500 bytes=1000 inodes_used_percent=75 read_only=0 source=/dev/nvme0n1p1 used_percent=50");
  EXPECT_EQ(values_of(seen, "disk.space", "/mnt/my disk"),
            "available_bytes=100 bytes=1000 read_only=0 source=/dev/nvme1n1 used_percent=88.8889");
}

TEST(DiskSpace, tells_a_file_system_that_became_read_only_from_a_mount_that_is_so_on_purpose) {
  const FakeHost host;
  host.file("proc/self/mountinfo",
            "25 1 259:1 / / rw,noatime - ext4 /dev/nvme0n1p1 ro,errors=remount-ro\n"
            "26 1 259:2 / /data ro - ext4 /dev/nvme1n1 ro\n");
  const auto seen = SpaceProbe(host.paths(), fixed_space).look(kNow);
  EXPECT_NE(values_of(seen, "disk.space", "/").find("read_only=1"), std::string::npos);
  EXPECT_NE(values_of(seen, "disk.space", "/data").find("read_only=0"), std::string::npos);
}

TEST(DiskSpace, a_mount_point_that_is_not_seen_from_here_has_no_space_and_breaks_nothing) {
  const FakeHost host;
  host.file("proc/1/mountinfo", kMounts);
  const auto seen = SpaceProbe(host.paths(), [](const std::string&) -> Result<Space> {
                      return Error(Code::kNotFound, "not here");
                    }).look(kNow);
  EXPECT_EQ(values_of(seen, "disk.space", "/"), "read_only=0 source=/dev/nvme0n1p1");
}

TEST(DiskSpace, is_measured_for_real) {
  const FakeHost host;
  const auto space = space_of(host.folder());
  ASSERT_TRUE(space);
  EXPECT_GT(space->bytes, 0);
  EXPECT_LE(space->available_bytes, space->bytes);
  EXPECT_EQ(space_of(host.folder() + "/none").error().code, Code::kNotFound);
}

TEST(Nvme, counts_the_instances_own_disks_and_reads_all) {
  const FakeHost host;
  for (int i = 0; i < 3; ++i) {
    const std::string at = "sys/class/nvme/nvme" + std::to_string(i);
    host.file(at + "/state", i == 2 ? "dead" : "live");
    host.file(at + "/model", i == 0 ? "Amazon Elastic Block Store" : "Amazon EC2 NVMe Instance Storage");
  }
  host.file("sys/class/nvme/nvme1/hwmon3/temp1_input", "41850");
  host.file("sys/class/nvme/nvme1/hwmon3/temp1_alarm", "0");
  host.file("sys/block/nvme1n1/stat", "  10 0 8 200  20 0 16 400 1 600 600 0 0 0 0");
  const auto seen = NvmeProbe(host.paths(), 2).look(kNow);
  EXPECT_EQ(values_of(seen, "nvme.count"), "count=1 expected=2");
  EXPECT_EQ(values_of(seen, "nvme.disk", "nvme1"),
            "alarm=0 busy_seconds=0.6 in_flight=1 live=1 model=Amazon EC2 NVMe Instance Storage read_bytes=4096 "
            "read_seconds=0.2 reads=10 state=live temperature=41.85 write_bytes=8192 write_seconds=0.4 writes=20");
  EXPECT_EQ(values_of(seen, "nvme.disk", "nvme2"), "live=0 model=Amazon EC2 NVMe Instance Storage state=dead");
}

TEST(Nvme, has_nothing_to_say_without_disks) {
  const FakeHost host;
  const auto seen = NvmeProbe(host.paths(), 0).look(kNow);
  ASSERT_TRUE(seen);
  EXPECT_TRUE(seen->empty());
}

}  // namespace
}  // namespace pitcrew::agent::disk
