#include "agent/probe/versions/versions.hpp"

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::versions {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

TEST(Version, is_compared_by_its_numbers) {
  EXPECT_LT(*parse_version("2.9"), *parse_version("2.19.3"));
  EXPECT_EQ(*parse_version("2.1.0amzn5.0"), *parse_version("2.1"));
  EXPECT_GT(*parse_version("580.65.06"), *parse_version("580"));
  EXPECT_FALSE(parse_version(""));
  EXPECT_FALSE(parse_version("latest"));
  EXPECT_FALSE(parse_version("267440737029551615")) << "no such number of a version";
  EXPECT_TRUE(parse_installed_packages("libfabric-aws-267440737029551615-1").empty());
}

TEST(Versions, are_read_where_the_machine_shows_them) {
  const FakeHost host;
  host.file("proc/sys/kernel/osrelease", "6.1.130-139.222.amzn2023.x86_64");
  host.file("sys/module/efa/version", "2.17.2g");
  host.file(
      "proc/driver/nvidia/version",
      "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@x)\nGCC version: 14");
  host.file(
      "opt/amazon/efa_installed_packages",
      "# EFA installer version: 1.43.1\n# Debug packages installed: no\n# Packages installed:\nefa-2.17.2-1.x86_64 "
      "libfabric-aws-2.1.0amzn5.0-1.amzn2023.x86_64 libnccl-ofi-1.16.2-1.x86_64\n");
  host.file("usr/lib/x86_64-linux-gnu/libnccl.so.2.27.7", "");
  host.file("usr/lib/x86_64-linux-gnu/libnccl.so.2", "");
  host.file("usr/local/cuda/version.json", R"({"cuda": {"name": "CUDA SDK", "version": "12.8.1"}})");
  EXPECT_EQ(values_of(VersionsProbe(host.paths()).look(kNow), "versions"),
            "aws-ofi-nccl=1.16.2 clashes=0 cuda=12.8.1 efa-driver=2.17.2g efa-installer=1.43.1 "
            "kernel=6.1.130-139.222.amzn2023.x86_64 libfabric=2.1.0amzn5.0 nccl=2.27.7 nvidia-driver=580.65.06");
}

TEST(Versions, dpkgs_names_are_read_too) {
  const Versions versions = parse_installed_packages(
      "# EFA installer version: 1.30.0\nlibfabric1-aws_1.19.0_amd64 libfabric-aws-bin_1.19.0_amd64 "
      "rdma-core_46.0-1_amd64");
  EXPECT_EQ(versions, (Versions{{"efa-installer", "1.30.0"}, {"libfabric", "1.19.0"}, {"rdma-core", "46.0"}}));
}

TEST(Versions, a_known_clash_is_told_with_its_pair_and_source) {
  const auto clashes = find_clashes({{"nccl", "2.19.3"}, {"efa-installer", "1.28.0"}});
  ASSERT_EQ(clashes.size(), 1u);
  EXPECT_TRUE(clashes[0].starts_with("nccl 2.19.3 with efa-installer 1.28.0: ")) << clashes[0];
  EXPECT_TRUE(clashes[0].ends_with("(aws/aws-ofi-nccl#584)")) << clashes[0];
  EXPECT_TRUE(find_clashes({{"nccl", "2.18.6"}, {"efa-installer", "1.28.0"}}).empty());
  EXPECT_TRUE(find_clashes({{"nccl", "2.19.3"}, {"efa-installer", "1.29.0"}}).empty());
  EXPECT_TRUE(find_clashes({{"nccl", "2.19.3"}}).empty()) << "what is not seen clashes with nothing";
}

// Each row of the table is reached by versions just inside it, and left by those just outside.
TEST(Versions, every_clash_is_found_inside_its_ranges_and_not_outside) {
  const auto inside = [](const Range& range) { return std::string(range.from.empty() ? "0.1" : range.from); };
  for (const Clash& clash : known_clashes()) {
    EXPECT_FALSE(clash.source.empty());
    const Versions both{{std::string(clash.one.component), inside(clash.one)},
                        {std::string(clash.other.component), inside(clash.other)}};
    const auto found = find_clashes(both);
    ASSERT_FALSE(found.empty()) << clash.why;
    Versions outside = both;
    for (const Range& range : {clash.one, clash.other}) {
      if (!range.below.empty()) outside[std::string(range.component)] = std::string(range.below);
    }
    for (const std::string& text : find_clashes(outside)) {
      EXPECT_EQ(text.find(clash.why), std::string::npos) << text;
    }
  }
}

TEST(Versions, a_machine_that_shows_nothing_says_nothing) {
  const FakeHost host;
  const auto seen = VersionsProbe(host.paths()).look(kNow);
  ASSERT_TRUE(seen);
  EXPECT_TRUE(seen->empty());
  host.file("usr/local/cuda/version.json", "{not json");
  EXPECT_TRUE(VersionsProbe(host.paths()).look(kNow)->empty());
}

}  // namespace
}  // namespace pitcrew::agent::versions
