#include "trainer/comm/flight_recorder.hpp"

#include <algorithm>

#include <gtest/gtest.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

TEST(FlightRecorder, says_what_was_done_what_failed_and_what_is_waited_for) {
  FlightRecorder recorder;
  EXPECT_EQ(recorder.text(), "");
  FlightRecorder::Track& world = recorder.track("");
  world.begin(811, "all_gather", 4096);
  world.end(true);
  world.begin(812, "exchange", 1048576);
  world.end(false);
  world.begin(813, "barrier", 0);
  const std::string text = recorder.text();
  EXPECT_EQ(text.find("collective 811 all_gather 4096 bytes "), 0u) << text;
  EXPECT_NE(text.find("\ncollective 812 exchange 1048576 bytes failed after "), std::string::npos) << text;
  EXPECT_NE(text.find("\ncollective 813 barrier 0 bytes waiting for "), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with(" ms\n")) << text;
}

TEST(FlightRecorder, a_group_that_talks_all_the_time_leaves_the_others_last_words_alone) {
  FlightRecorder recorder;
  FlightRecorder::Track &world = recorder.track(""), &tensor = recorder.track("tensor");
  EXPECT_EQ(&recorder.track("tensor"), &tensor);
  world.begin(7, "barrier", 0);
  world.end(true);
  for (uint64_t i = 1; i <= 1000; ++i) {
    tensor.begin(i, "all_gather", 64);
    tensor.end(i < 1000);
  }
  world.begin(8, "exchange", 12);
  const std::string text = recorder.text();
  EXPECT_EQ(text.find("collective 7 barrier 0 bytes "), 0u) << text;
  EXPECT_NE(text.find("\ncollective 937 tensor all_gather 64 bytes "), std::string::npos) << text;
  const size_t failed = text.find("\ncollective 1000 tensor all_gather 64 bytes failed after ");
  const size_t waiting = text.find("\ncollective 8 exchange 12 bytes waiting for ");
  EXPECT_NE(failed, std::string::npos) << text;
  EXPECT_NE(waiting, std::string::npos) << text;
  EXPECT_LT(failed, waiting) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2 + static_cast<ptrdiff_t>(FlightRecorder::kEntries));
}

TEST(FlightRecorder, keeps_the_last_and_writes_the_same_to_a_file) {
  FlightRecorder recorder;
  for (uint64_t i = 1; i <= 3 * FlightRecorder::kEntries; ++i) {
    recorder.track("").begin(i, "barrier", 0);
    recorder.track("").end(true);
  }
  const std::string text = recorder.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), static_cast<ptrdiff_t>(FlightRecorder::kEntries));
  EXPECT_EQ(text.find("collective " + std::to_string(2 * FlightRecorder::kEntries + 1) + " "), 0u);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  recorder.write_to(ends[1]);
  close(ends[1]);
  std::string read_back(text.size() + 1, '\0');
  size_t size = 0;
  for (ssize_t got; (got = read(ends[0], read_back.data() + size, read_back.size() - size)) > 0;)
    size += static_cast<size_t>(got);
  close(ends[0]);
  EXPECT_EQ(read_back.substr(0, size), text);
}

}  // namespace
}  // namespace pitcrew::trainer
