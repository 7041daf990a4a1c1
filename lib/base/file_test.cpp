#include "lib/base/file.hpp"

#include <csignal>
#include <filesystem>

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>

namespace pitcrew {
namespace {

class PosixFiles : public testing::Test {
 protected:
  PosixFiles() {
    std::string name = (std::filesystem::temp_directory_path() / "pitcrew-file-XXXXXX").string();
    folder = ::mkdtemp(name.data());
  }
  ~PosixFiles() override { std::filesystem::remove_all(folder); }
  std::string at(std::string_view name) const { return join_path(folder, name); }

  FileSystem& files = posix_file_system();
  std::string folder;
};

TEST_F(PosixFiles, a_replaced_file_reads_back_and_leaves_no_temporary) {
  ASSERT_TRUE(replace_file(files, at("a.json"), "one"));
  ASSERT_TRUE(replace_file(files, at("a.json"), "two"));
  EXPECT_EQ(*read_file(files, at("a.json"), 100), "two");
  EXPECT_EQ(files.list(folder)->size(), 1u);
}

TEST_F(PosixFiles, of_two_links_to_one_name_the_second_is_told_that_it_exists) {
  ASSERT_TRUE(replace_file(files, at("x"), "x"));
  ASSERT_TRUE(files.link(at("x"), at("claim")));
  const Status second = files.link(at("x"), at("claim"));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
}

TEST_F(PosixFiles, folders_are_made_with_those_above_them_and_listed_sorted) {
  ASSERT_TRUE(make_folders(files, at("a/b/c")));
  ASSERT_TRUE(make_folders(files, at("a/b/c")));
  ASSERT_TRUE(replace_file(files, at("a/b/z"), "12345"));
  const auto entries = *files.list(at("a/b"));
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_TRUE(entries[0].folder);
  EXPECT_EQ(entries[1].name, "z");
  EXPECT_EQ(entries[1].size, 5u);
}

TEST_F(PosixFiles, reading_past_the_end_is_data_loss_that_names_the_file) {
  ASSERT_TRUE(replace_file(files, at("short"), "abc"));
  const auto file = *files.open(at("short"), FileSystem::Open::kRead);
  std::byte data[8];
  const Status read = file->read(data, 0);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::kDataLoss);
  EXPECT_NE(read.error().message.find("short"), std::string::npos);
}

TEST_F(PosixFiles, what_is_absent_is_not_found) {
  EXPECT_EQ(files.open(at("none"), FileSystem::Open::kRead).error().code, Code::kNotFound);
  EXPECT_EQ(files.list(at("none")).error().code, Code::kNotFound);
  EXPECT_EQ(files.remove(at("none")).error().code, Code::kNotFound);
}

TEST_F(PosixFiles, a_write_that_the_kernel_cuts_short_at_a_limit_is_an_error_not_a_short_file) {
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* old = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto file = files.open(at("limited"), FileSystem::Open::kCreate);
  const Status wrote = file ? (*file)->write(std::vector<std::byte>(10000), 0) : Status(file.error());
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old);
  ASSERT_FALSE(wrote);
  EXPECT_NE(wrote.error().message.find("limited"), std::string::npos);
}

TEST(PathParts, are_joined_and_taken_apart) {
  EXPECT_EQ(join_path("a/b", "c"), "a/b/c");
  EXPECT_EQ(join_path("a/", "c"), "a/c");
  EXPECT_EQ(folder_of("/a/b"), "/a");
  EXPECT_EQ(folder_of("/a"), "/");
  EXPECT_EQ(folder_of("a"), ".");
}

}  // namespace
}  // namespace pitcrew
