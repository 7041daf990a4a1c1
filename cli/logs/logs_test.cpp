#include <gtest/gtest.h>

#include "cli/logs/log_lines.hpp"

namespace pitcrew::cli {
namespace {

std::vector<std::string> texts(const std::vector<LogLine>& lines) {
  std::vector<std::string> texts;
  for (const LogLine& line : lines) texts.push_back(line.text);
  return texts;
}

TEST(LogLines, a_line_has_a_time_and_perhaps_a_rank) {
  const LogLine line = read_log_line("2026-03-01T02:14:07.123456789Z [rank 3] loss 2.31", "p", "");
  EXPECT_EQ(line.time, "2026-03-01T02:14:07.123456789Z");
  EXPECT_EQ(line.rank, 3u);
  EXPECT_EQ(line.text, "loss 2.31");
  EXPECT_EQ(read_log_line("2026-03-01T02:14:07Z [rank 12]+ more of it", "p", "").text, "more of it");
  EXPECT_FALSE(read_log_line("2026-03-01T02:14:07Z [rank x] odd", "p", "").rank);
  EXPECT_EQ(read_log_line("2026-03-01T02:14:07Z", "p", "").text, "");
  EXPECT_EQ(read_log_line("no time", "p", "2026-03-01T02:14:07Z").time, "2026-03-01T02:14:07Z");
  EXPECT_EQ(read_log_line("2026-03-01Tomorrow: no time", "p", "before").time, "before");
}

TEST(LogLines, nodes_in_other_zones_and_short_fractions_are_merged_by_the_time_they_mean) {
  LogMerger merger;
  merger.add("berlin", "2026-03-01T03:14:07.5+01:00 second\n2026-03-01T03:14:07.55+01:00 third\n");
  merger.add("utc", "2026-03-01T02:14:07Z first\n2026-03-01T02:14:08.000000001Z last\n");
  merger.add("denver", "2026-02-28T19:14:07.9-07:00 fourth\n");
  EXPECT_EQ(texts(merger.take()), (std::vector<std::string>{"first", "second", "third", "fourth", "last"}));
  EXPECT_EQ(merger.since("berlin"), "2026-03-01T02:14:07.550000000Z");
}

TEST(LogLines, a_launchers_own_words_are_known_from_a_program_that_writes_json) {
  EXPECT_TRUE(said_by_launcher(
      R"({"time":"2026-03-01T02:14:07.123Z","level":"info","message":"a new epoch","program":"pitcrew-launcher","pod":"p"})"));
  EXPECT_FALSE(said_by_launcher(R"({"message":"step 3","program":"train.py"})"));
  EXPECT_FALSE(said_by_launcher(R"(said: {"program":"pitcrew-launcher"})"));
  EXPECT_FALSE(said_by_launcher("==== pitcrew stacks begin: request cli-7 ===="));
}

TEST(LogLines, several_pods_are_merged_in_the_order_of_time) {
  LogMerger merger;
  merger.add("a", "2026-03-01T00:00:01Z one\n2026-03-01T00:00:03Z three\n");
  merger.add("b", "2026-03-01T00:00:02Z two\n2026-03-01T00:00:04Z four\n");
  EXPECT_EQ(texts(merger.take("2026-03-01T00:00:04.000000000Z")), (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_EQ(texts(merger.take()), (std::vector<std::string>{"four"}));
}

TEST(LogLines, what_is_read_twice_is_told_once_and_what_was_said_twice_twice) {
  LogMerger merger;
  merger.add("a", "2026-03-01T00:00:01Z x\n2026-03-01T00:00:01Z x\n");
  EXPECT_EQ(merger.take().size(), 2u);
  EXPECT_EQ(merger.since("a"), "2026-03-01T00:00:01.000000000Z");
  merger.add("a", "2026-03-01T00:00:01Z x\n2026-03-01T00:00:01Z x\n2026-03-01T00:00:01Z x\n2026-03-01T00:00:02Z y\n");
  EXPECT_EQ(texts(merger.take()), (std::vector<std::string>{"x", "y"}));
  merger.add("a", "2026-03-01T00:00:02Z y\n");
  EXPECT_TRUE(merger.take().empty());
}

TEST(LogLines, stacks_are_found_by_their_reason) {
  const std::string log =
      "noise\n==== pitcrew stacks begin: no progress for 9 s ====\nold\n==== pitcrew stacks end ====\n"
      "==== pitcrew stacks begin: request cli-7 ====\nrank 0, pid 4\n  main\n==== pitcrew stacks end ====\nnoise\n";
  EXPECT_EQ(stacks_in(log, "request cli-7"), (std::vector<std::string>{"rank 0, pid 4\n  main\n"}));
  EXPECT_TRUE(stacks_in(log, "request cli-8").empty());
}

TEST(LogLines, a_programs_last_words_are_found_between_stacks) {
  const std::string begin = "==== pitcrew stacks begin: no progress for 9 s ====", end = "==== pitcrew stacks end ====";
  using Lines = std::vector<std::string>;
  EXPECT_EQ(without_stacks({"loss 2", begin, "rank 0", end, "loss 3"}), (Lines{"loss 2", "loss 3"}));
  EXPECT_EQ(without_stacks({"  main", end, "loss 3", begin, "rank 0"}), Lines{"loss 3"}) << "cut at both ends";
  EXPECT_EQ(without_stacks({"loss 2", "loss 3"}), (Lines{"loss 2", "loss 3"}));
}

}  // namespace
}  // namespace pitcrew::cli
