#include "trainer/comm/flight_recorder.hpp"

#include <algorithm>

#include <gtest/gtest.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

TEST(FlightRecorder, says_what_was_done_what_failed_and_what_is_waited_for) {
  FlightRecorder recorder;
  EXPECT_EQ(recorder.text(), "");
  recorder.begin(811, "all_gather", 4096);
  recorder.end(true);
  recorder.begin(812, "exchange", 1048576);
  recorder.end(false);
  recorder.begin(813, "barrier", 0);
  const std::string text = recorder.text();
  EXPECT_EQ(text.find("collective 811 all_gather 4096 bytes "), 0u) << text;
  EXPECT_NE(text.find("\ncollective 812 exchange 1048576 bytes failed after "), std::string::npos) << text;
  EXPECT_NE(text.find("\ncollective 813 barrier 0 bytes waiting for "), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with(" ms\n")) << text;
}

TEST(FlightRecorder, keeps_the_last_and_writes_the_same_to_a_file) {
  FlightRecorder recorder;
  for (uint64_t i = 1; i <= 3 * FlightRecorder::kEntries; ++i) {
    recorder.begin(i, "barrier", 0);
    recorder.end(true);
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
