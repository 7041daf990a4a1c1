#include "agent/check/disk/disk.hpp"

#include <filesystem>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;

TEST(CheckDisk, writes_reads_back_and_leaves_nothing) {
  const TempFolder folder;
  const auto test = check_disk({.folder = folder.path(), .bytes = 16 << 20}, {});
  ASSERT_EQ(test.outcome, CheckOutcome::kPassed) << test.message;
  ASSERT_EQ(test.figures.size(), 2u);
  EXPECT_GT(test.figures[0].value, 0);
  EXPECT_GT(test.figures[1].value, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(CheckDisk, a_slow_disk_fails_and_a_missing_folder_could_not_be_checked) {
  const TempFolder folder;
  Expectations expected;
  expected.disk_bandwidth = 1e9;
  EXPECT_EQ(check_disk({.folder = folder.path(), .bytes = 8 << 20}, expected).outcome, CheckOutcome::kFailed);
  const auto none = check_disk({.folder = folder.path() + "/none", .bytes = 8 << 20}, {});
  EXPECT_EQ(none.outcome, CheckOutcome::kUnknown);
  EXPECT_NE(none.message.find("/none"), std::string::npos);
}

TEST(CheckDisk, too_little_to_write_is_not_a_failure) {
  const TempFolder folder;
  EXPECT_EQ(check_disk({.folder = folder.path(), .bytes = 1}, {}).outcome, CheckOutcome::kUnknown);
}

}  // namespace
}  // namespace pitcrew::check
