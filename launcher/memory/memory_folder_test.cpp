#include "launcher/memory/memory_folder.hpp"

#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/testing/fake_operator.hpp"

namespace pitcrew::launcher {
namespace {

class MemoryFolderTest : public ::testing::Test {
 protected:
  MemoryFolderTest() : root_(testing::make_temporary_folder()) {}
  ~MemoryFolderTest() override {
    if (system(("rm -rf " + root_).c_str()) != 0) ADD_FAILURE() << "could not remove " << root_;
  }
  MemoryFolder open() {
    auto folder = MemoryFolder::open(root_ + "/memory");
    EXPECT_TRUE(folder) << folder.error().message;
    return *std::move(folder);
  }
  void put(const std::string& path, const std::string& content) {
    if (system(("mkdir -p $(dirname " + root_ + "/memory/" + path + ")").c_str()) != 0) ADD_FAILURE();
    std::ofstream(root_ + "/memory/" + path) << content;
  }
  bool exists(const std::string& path) { return access((root_ + "/memory/" + path).c_str(), F_OK) == 0; }
  std::string root_;
};

TEST(Names, that_lead_elsewhere_are_refused) {
  for (const char* good : {"own/step-1-c1/a.safetensors", "x", "a_b-c.d", "1/2/3/4/5/6/7/8"})
    EXPECT_TRUE(valid_path(good)) << good;
  for (const char* bad : {"", "/", "/etc/passwd", "../x", "own/../../x", "own//x", "own/", ".hidden", "own/.x", "a b",
                          "a\nb", "a\\b", "ä", "1/2/3/4/5/6/7/8/9", "a/./b"}) {
    EXPECT_FALSE(valid_path(bad)) << bad;
  }
  EXPECT_FALSE(valid_name(std::string(129, 'x')));
  EXPECT_FALSE(valid_name(std::string_view("a\0b", 3)));
  EXPECT_FALSE(valid_name("a/b"));
}

TEST(Names, of_checkpoints_are_parsed) {
  EXPECT_EQ(parse_checkpoint_name("step-120-c3"), (ResumePoint{Step(120), 3, Place::kMemory}));
  for (const char* bad : {"", "step-", "step-1", "step-1-c", "step--1-c1", "step-1-c1x", "step-1-d1", "Step-1-c1",
                          "step-99999999999999999999-c1"}) {
    EXPECT_FALSE(parse_checkpoint_name(bad)) << bad;
  }
}

TEST_F(MemoryFolderTest, what_is_there_is_adopted_and_what_was_unfinished_is_removed) {
  put("own/step-20-c1/shard-0", "a");
  put("own/step-20-c1/shard-1.part", "half");
  put("peer/3/step-20-c1/shard-3", "b");
  put("peer/3/step-20-c1/shard-4.part", "half");
  put("counted/step-20-c1", "");
  put("fetch/rank-0/x", "old");
  const MemoryFolder folder = open();
  const auto held = folder.held();
  EXPECT_EQ(held.own, std::vector<std::string>{"step-20-c1/shard-0"});
  ASSERT_EQ(held.peer.size(), 1u);
  EXPECT_EQ(held.peer[0].of, Slot(3));
  EXPECT_EQ(held.peer[0].files, std::vector<std::string>{"step-20-c1/shard-3"});
  EXPECT_EQ(held.counted, std::vector<std::string>{"step-20-c1"});
  EXPECT_FALSE(exists("own/step-20-c1/shard-1.part"));
  EXPECT_FALSE(exists("peer/3/step-20-c1/shard-4.part"));
  EXPECT_FALSE(exists("fetch/rank-0"));
}

TEST_F(MemoryFolderTest, links_lead_nowhere) {
  std::ofstream(root_ + "/secret") << "secret";
  MemoryFolder folder = open();
  EXPECT_EQ(symlink((root_ + "/secret").c_str(), (root_ + "/memory/own/link").c_str()), 0);
  EXPECT_EQ(symlink(root_.c_str(), (root_ + "/memory/own/folder").c_str()), 0);
  EXPECT_FALSE(folder.open_file("own/link"));
  EXPECT_FALSE(folder.open_file("own/folder/secret"));
  EXPECT_FALSE(folder.open_file("counted/step-1-c1")) << "only own/ and peer/ are read";
  EXPECT_FALSE(folder.open_file("own"));
}

TEST_F(MemoryFolderTest, a_copy_has_its_name_once_it_is_whole) {
  MemoryFolder folder = open();
  {
    auto incoming = folder.receive_copy(Slot(2), "step-4-c1", "a", 4);
    ASSERT_TRUE(incoming) << incoming.error().message;
    ASSERT_TRUE(incoming->write("abcd", 4, 0));
    EXPECT_TRUE(folder.held().peer.empty());
    ASSERT_TRUE(incoming->commit());
  }
  EXPECT_EQ(folder.held().peer.at(0).files, std::vector<std::string>{"step-4-c1/a"});
  {
    auto abandoned = folder.receive_copy(Slot(2), "step-4-c1", "b", 4);
    ASSERT_TRUE(abandoned);
    EXPECT_TRUE(exists("peer/2/step-4-c1/b.part"));
  }
  EXPECT_FALSE(exists("peer/2/step-4-c1/b.part"));
  EXPECT_FALSE(folder.receive_copy(Slot(2), "../x", "b", 4));
  EXPECT_FALSE(folder.receive_copy(Slot(2), "step-4-c1", "../../b", 4));
}

TEST_F(MemoryFolderTest, more_than_there_is_room_for_is_refused_at_once) {
  MemoryFolder folder = open();
  const auto incoming = folder.receive_copy(Slot(2), "step-4-c1", "a", uint64_t{1} << 60);
  ASSERT_FALSE(incoming);
  EXPECT_EQ(incoming.error().code, Code::kResourceExhausted) << incoming.error().message;
  EXPECT_FALSE(exists("peer/2/step-4-c1/a.part"));
}

TEST_F(MemoryFolderTest, a_newer_one_that_counts_lets_go_of_copies_before_the_last_but_one) {
  MemoryFolder folder = open();
  for (const char* step : {"step-10-c1", "step-20-c1", "step-30-c1", "step-40-c1"}) {
    put(std::string("peer/1/") + step + "/x", "x");
    put(std::string("own/") + step + "/x", "x");
  }
  ASSERT_TRUE(folder.mark_counted("step-20-c1"));
  EXPECT_TRUE(exists("peer/1/step-10-c1/x")) << "nothing counted before";
  ASSERT_TRUE(folder.mark_counted("step-30-c1"));
  EXPECT_FALSE(exists("peer/1/step-10-c1"));
  EXPECT_TRUE(exists("peer/1/step-20-c1/x")) << "ranks may still be reading it";
  EXPECT_TRUE(exists("peer/1/step-40-c1/x")) << "still being made";
  EXPECT_TRUE(exists("own/step-10-c1/x")) << "the ranks' own files are the ranks'";
  EXPECT_EQ(folder.counted().at(0).step, Step(30));
  EXPECT_FALSE(folder.mark_counted("something"));
}

TEST_F(MemoryFolderTest, a_drop_removes_files_and_mark) {
  MemoryFolder folder = open();
  put("own/step-10-c1/sub/x", "x");
  ASSERT_TRUE(folder.mark_counted("step-10-c1"));
  put("peer/7/step-10-c1/x", "x");
  ASSERT_TRUE(folder.drop_own("step-10-c1"));
  ASSERT_TRUE(folder.drop_copy(Slot(7), "step-10-c1"));
  ASSERT_TRUE(folder.drop_own("step-10-c1")) << "again";
  EXPECT_FALSE(exists("own/step-10-c1"));
  EXPECT_FALSE(exists("peer/7"));
  EXPECT_TRUE(folder.counted().empty());
  EXPECT_EQ(mkdir((root_ + "/memory/counted/step-20-c1").c_str(), 0770), 0);
  ASSERT_TRUE(folder.drop_own("step-20-c1"));
  EXPECT_FALSE(exists("counted/step-20-c1")) << "ranks without a launcher make folders";
  EXPECT_FALSE(folder.drop_own(".."));
}

}  // namespace
}  // namespace pitcrew::launcher
