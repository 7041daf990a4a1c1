#include "agent/check/efa/pingpong.hpp"

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;

constexpr char kInfo[] =
    "provider: efa\n    fabric: efa\n    domain: rdmap0s29-rdm\n    version: 201.0\nprovider: efa\n    domain: "
    "rdmap0s29-dgrm\nprovider: efa\n    domain: rdmap16s29-rdm\n";
constexpr char kPingPong[] =
    "bytes   #sent   #ack     total       time     MB/sec    usec/xfer   Mxfers/sec\n"
    "64      10      =10      1.2k        0.00s      2.95      21.63       0.05\n"
    "1m      100     =100     200m        0.01s   5859.20      178.95       0.01\n";

TEST(PingPong, output_is_read) {
  EXPECT_EQ(parse_domains(kInfo), (std::vector<std::string>{"rdmap0s29-rdm", "rdmap16s29-rdm"}));
  const auto found = parse_pingpong(kPingPong);
  ASSERT_TRUE(found);
  EXPECT_DOUBLE_EQ(found->bytes_per_second, 5859.20e6);
  EXPECT_DOUBLE_EQ(found->microseconds, 21.63);
  EXPECT_FALSE(parse_pingpong("fi_getinfo: -61\n"));
  EXPECT_FALSE(parse_pingpong(""));
}

// libfabric's tools as scripts: a server waits for its client's file, the client prints.
class Tools : public testing::Test {
 protected:
  void install(const std::string& info, const std::string& client) const {
    folder_.write("info.txt", info);
    folder_.write("pingpong.txt", kPingPong);
    folder_.write_program("fi_info", "#!/bin/sh\ncat " + folder_.path() + "/info.txt\n");
    folder_.write_program("fi_pingpong",
                          "#!/bin/sh\n"
                          "[ \"$FI_EFA_ENABLE_SHM_TRANSFER\" = 0 ] || exit 9\n"
                          "case \"$*\" in\n*127.0.0.1*) " +
                              client + ";;\nesac\n");
  }
  std::vector<api::CheckTest> check(unsigned expected_devices, Duration timeout = seconds(60)) const {
    Expectations expected;
    expected.efa_devices = expected_devices;
    return check_efa({.folders = {folder_.path()}, .timeout = timeout}, expected);
  }
  TempFolder folder_;
};

TEST_F(Tools, every_device_is_asked_and_has_its_figures) {
  install(kInfo, "cat " + folder_.path() + "/pingpong.txt");
  const auto tests = check(2);
  ASSERT_EQ(tests.size(), 3u);
  for (const auto& test : tests) EXPECT_EQ(test.outcome, CheckOutcome::kPassed) << test.device << " " << test.message;
  EXPECT_EQ(tests[1].device, "rdmap0s29");
  EXPECT_EQ(tests[1].figures.size(), 2u);
}

TEST_F(Tools, fewer_devices_than_the_machine_should_have_are_a_failure) {
  install(kInfo, "cat " + folder_.path() + "/pingpong.txt");
  EXPECT_EQ(check(4)[0].message, "devices is 2, expected at least 4");
  install("", "exit 1");
  ASSERT_EQ(check(4).size(), 1u);
  EXPECT_EQ(check(4)[0].outcome, CheckOutcome::kFailed);
  EXPECT_EQ(check(0)[0].outcome, CheckOutcome::kSkipped);
}

TEST_F(Tools, a_device_that_fails_is_named_with_what_was_said) {
  install(kInfo, "case \"$*\" in *rdmap16s29*) echo 'fi_read: -110'; exit 3;; *) cat " + folder_.path() +
                     "/pingpong.txt;; esac");
  const auto tests = check(2, milliseconds(500));
  ASSERT_EQ(tests.size(), 3u);
  EXPECT_EQ(tests[2].outcome, CheckOutcome::kFailed);
  EXPECT_EQ(tests[2].device, "rdmap16s29");
  EXPECT_TRUE(tests[2].message.starts_with("fi_pingpong ")) << tests[2].message;
}

TEST_F(Tools, are_skipped_where_they_are_not_installed) {
  const auto tests = check(32);
  ASSERT_EQ(tests.size(), 1u);
  EXPECT_EQ(tests[0].outcome, CheckOutcome::kSkipped);
}

}  // namespace
}  // namespace pitcrew::check
