#include <gtest/gtest.h>
#include <unistd.h>

#include "cli/show/document.hpp"
#include "cli/show/table.hpp"
#include "cli/show/terminal.hpp"
#include "cli/show/words.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::cli {
namespace {

TEST(Terminal, colours_take_no_columns) {
  const Terminal colourful{80, true};
  EXPECT_EQ(columns(colourful.paint(Tone::kBad, "✗ pods")), 6u);
  EXPECT_EQ((Terminal{80, false}.paint(Tone::kBad, "x")), "x");
}

TEST(Terminal, a_pipe_gets_no_colours_unless_it_is_asked_for_them) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_FALSE(Terminal::of(ends[1]).colour);
  EXPECT_TRUE(Terminal::of(ends[1], "always").colour);
  close(ends[0]);
  close(ends[1]);
}

TEST(Terminal, long_text_is_wrapped_at_spaces_and_hangs) {
  EXPECT_EQ(hang("one two three four", 2, 11), "one two\n  three\n  four");
  EXPECT_EQ(wrap("abcdefghijkl", 8), (std::vector<std::string>{"abcdefgh", "ijkl"}));
  EXPECT_EQ(wrap("a\nb", 8), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(cut("naïve text", 6), "naïve…");
}

TEST(Table, stands_in_columns_and_is_cut_at_the_terminals_edge) {
  Table table({"NAME", ">STEP", "WHY"});
  table.add({{"a"}, {"12"}, {"because of something long"}});
  table.add({{"longer"}, {"1200"}, {""}});
  EXPECT_EQ(table.render({30, false}),
            "NAME    STEP  WHY\n"
            "a         12  because of some…\n"
            "longer  1200  \n");
}

TEST(Words, times_and_amounts_as_people_say_them) {
  EXPECT_EQ(spoken(milliseconds(5400)), "5.4s");
  EXPECT_EQ(spoken(seconds(200)), "3m 20s");
  EXPECT_EQ(spoken(minutes(312)), "5h 12m");
  EXPECT_EQ(spoken(hours(52)), "2d 4h");
  EXPECT_EQ(grouped(12400), "12,400");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(rate(41234), "41.2k");
  EXPECT_EQ(bytes(15'900'000'000), "15.9 GB");
  EXPECT_EQ(some_of(std::vector<std::string>{"a", "b", "c", "d", "e"}, 2), "a, b and 3 more");
  const Instant now = *parse_rfc3339("2026-03-02T00:10:00Z");
  EXPECT_EQ(clock_time(now, *parse_rfc3339("2026-03-02T00:01:02Z")), "00:01:02Z");
  EXPECT_EQ(clock_time(now, *parse_rfc3339("2026-03-01T23:01:02Z")), "03-01 23:01:02Z");
}

TEST(Document, yaml_reads_back_as_the_same) {
  const Json document = {{"name", "llama"},
                         {"number", 12},
                         {"quoted", "12"},
                         {"yes", "true"},
                         {"text", "two\nlines: #"},
                         {"empty", Json::array()},
                         {"list", {{{"a", 1}, {"b", {1, 2}}}, "x", {{1, 2}, {3}}}},
                         {"object", {{"key: odd", nullptr}, {"", "e"}}}};
  const auto read = parse_yaml(print_document(document, Format::kYaml));
  ASSERT_TRUE(read.ok()) << read.error().message << "\n" << print_document(document, Format::kYaml);
  EXPECT_EQ(read->front().json, document) << print_document(document, Format::kYaml);
  EXPECT_FALSE(parse_format("xml").ok());
}

}  // namespace
}  // namespace pitcrew::cli
