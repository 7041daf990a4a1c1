#include "launcher/supervise/text.hpp"

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

TEST(Tail, keeps_the_last_bytes_whatever_the_pieces) {
  for (const size_t piece : {1u, 3u, 7u, 10u, 11u, 64u, 1000u}) {
    Tail tail(10);
    std::string all;
    for (int i = 0; i < 200; ++i) {
      const std::string bytes(piece, static_cast<char>('a' + i % 26));
      tail.append(bytes);
      all += bytes;
      ASSERT_EQ(tail.view(), all.substr(all.size() - std::min<size_t>(10, all.size())));
    }
    EXPECT_EQ(tail.total(), all.size());
  }
}

TEST(Tail, gives_what_came_after_a_position_as_far_as_it_is_kept) {
  Tail tail(10);
  tail.append("0123456");
  EXPECT_EQ(tail.since(5), "56");
  EXPECT_EQ(tail.since(7), "");
  tail.append("789abcdef");
  EXPECT_EQ(tail.since(14), "ef");
  EXPECT_EQ(tail.since(0), "6789abcdef");
}

TEST(Text, bytes_that_are_no_utf8_and_control_characters_are_replaced) {
  EXPECT_EQ(clean_text("häß\t\n€ 𝄞"), "häß\t\n€ 𝄞");
  EXPECT_EQ(clean_text("\xff\x80"), "??");
  EXPECT_EQ(clean_text("\xc0\xaf"), "??") << "an overlong form";
  EXPECT_EQ(clean_text("\xed\xa0\x80"), "???") << "a surrogate";
  EXPECT_EQ(clean_text("\xe2\x82"), "??") << "cut inside a character";
  EXPECT_EQ(clean_text(std::string_view("\0\x1b[1m", 5)), "??[1m");
}

TEST(Text, is_shortened_between_characters) {
  EXPECT_EQ(shorten("abc", 3), "abc");
  const std::string cut = shorten(std::string(100, 'x'), 30);
  EXPECT_LE(cut.size(), 30u);
  EXPECT_TRUE(cut.ends_with("(cut)"));
  for (size_t limit = 15; limit < 40; ++limit)
    EXPECT_EQ(clean_text(shorten("€€€€€€€€€€€€€€€€", limit)).find('?'), std::string::npos);
}

TEST(LastLines, are_bounded_by_count_and_bytes) {
  EXPECT_EQ(last_lines("a\nb\r\nc", 2, 100), (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(last_lines("aaaa\nbbbb\ncccc\n", 20, 9), (std::vector<std::string>{"bbbb", "cccc"}));
  EXPECT_EQ(last_lines("", 20, 9), std::vector<std::string>{});
  EXPECT_EQ(last_lines(std::string(100, 'x'), 20, 40).at(0).size(), 40u);
}

TEST(LastException, is_the_line_that_names_it) {
  struct Row {
    const char* output;
    const char* exception;
  };
  const std::vector<Row> rows{
      {"step 1\nstep 2\n", ""},
      {"Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    f()\nRuntimeError: CUDA out of "
       "memory\n",
       "RuntimeError: CUDA out of memory"},
      {"Traceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'x'\n\nDuring handling of the above "
       "exception, another exception "
       "occurred:\n\nTraceback (most recent call last):\n  File \"b.py\", line 1\nmy.module.CustomError: worse\nmore "
       "output\n",
       "my.module.CustomError: worse"},
      {"Traceback (most recent call last):\n  File \"a.py\", line 3\nKeyboardInterrupt\n", "KeyboardInterrupt"},
      {"Traceback (most recent call last):\n  File \"a.py\"\n", ""},
      {"terminate called after throwing an instance of 'std::runtime_error'\n  what():  no route\n",
       "std::runtime_error: no route"},
      {"terminate called after throwing an instance of 'int'\nAborted\n", "int"},
      {"terminate called after throwing an instance of 'int'", "int"},
      {"train: model.cc:12: void f(): Assertion `x > 0' failed.\n",
       "train: model.cc:12: void f(): Assertion `x > 0' failed."},
      {"thread 'main' panicked at src/main.rs:4:5:\nboom\n", "thread 'main' panicked at src/main.rs:4:5:"},
      {"CUDA error: an illegal memory access was encountered\n",
       "CUDA error: an illegal memory access was encountered"},
      {"Traceback (most recent call last):\n  File \"a.py\"\nValueError: <object at 0x7f31ab> is bad\n",
       "ValueError: <object at 0x…> is bad"},
  };
  for (const Row& row : rows) EXPECT_EQ(last_exception(row.output), row.exception) << row.output;
}

}  // namespace
}  // namespace pitcrew::launcher
