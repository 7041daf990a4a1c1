#include "agent/probe/host.hpp"

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent {
namespace {

TEST(Host, reads_numbers_as_sysfs_writes_them) {
  EXPECT_EQ(parse_number("42\n"), 42);
  EXPECT_EQ(parse_number(" 0x1d0f "), 0x1d0f);
  EXPECT_EQ(parse_number("12.5"), 12.5);
  EXPECT_EQ(parse_number("-7"), -7);
  for (const char* wrong : {"", "x", "4 2", "12abc", "0x", "0xg", "nan", "inf", "1e5"})
    EXPECT_EQ(parse_number(wrong), std::nullopt) << wrong;
}

TEST(Host, reads_small_files_of_a_folder_and_tells_absent_from_unreadable) {
  const FakeHost host;
  host.file("sys/class/thing/count", "7");
  host.file("sys/class/thing/name", "  one two \n");
  const auto folder = Folder::open(host.paths().sys + "/class/thing");
  ASSERT_TRUE(folder);
  EXPECT_EQ(folder->entries(), (std::vector<std::string>{"count", "name"}));
  EXPECT_EQ(folder->number("count"), 7);
  EXPECT_EQ(*folder->text("name"), "one two");
  EXPECT_EQ(folder->number("name"), std::nullopt);
  EXPECT_EQ(folder->text("other").error().code, Code::kNotFound);
  EXPECT_EQ(Folder::open(host.paths().sys + "/class/none").error().code, Code::kNotFound);
  EXPECT_EQ(folder->text("name", 3)->size(), 1u) << "three bytes, two of them white space";
}

TEST(Host, splits_words_and_lines_within_limits) {
  EXPECT_EQ(split_words(" a  b\tc\n"), (std::vector<std::string_view>{"a", "b", "c"}));
  EXPECT_EQ(split_words("a b c", 2).size(), 2u);
  EXPECT_EQ(split_lines("a\r\n\nb"), (std::vector<std::string_view>{"a", "", "b"}));
  EXPECT_EQ(printable(std::string_view("a\x01\xff"
                                       "b",
                                       4),
                      3),
            "a  ");
}

}  // namespace
}  // namespace pitcrew::agent
