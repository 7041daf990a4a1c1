#include "agent/judge/rates.hpp"

#include <gtest/gtest.h>

#include "agent/judge/builtin_policy.hpp"

namespace pitcrew::agent {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

class Rates : public testing::Test {
 protected:
  // Reads a counter of a device at a time; "counter=rate/s" of what is written then, "-" where nothing is.
  std::string at(Duration after, double value, const std::string& counter = "unresponsive_remote_events") {
    Observation reading;
    reading.kind = "efa.port";
    reading.device = "rdmap0s29";
    reading.reading = true;
    reading.values[counter] = value;
    reading.time = kNow + after;
    return text(watch_.take({&reading, 1}, builtin_policy(), kNow + after));
  }
  std::string idle(Duration after) { return text(watch_.take({}, builtin_policy(), kNow + after)); }
  static std::string text(const std::optional<std::vector<api::DeviceRate>>& written) {
    if (!written) return "-";
    std::string out;
    for (const auto& rate : *written)
      out += rate.device + " " + rate.counter + "=" + to_string(Value(rate.per_second)) + ";";
    return out;
  }
  RateWatch watch_;
};

TEST_F(Rates, a_healthy_node_writes_nothing) {
  EXPECT_EQ(at(seconds(0), 500), "-") << "an old counter at the agent's start is no rate";
  for (int i = 1; i < 100; ++i) EXPECT_EQ(at(seconds(15 * i), 500 + i), "-") << "4 a minute, and 60 are let pass";
}

TEST_F(Rates, a_rate_is_written_when_it_crosses_the_limit_and_when_it_falls_back) {
  at(seconds(0), 0);
  EXPECT_EQ(at(seconds(15), 30), "rdmap0s29 unresponsive_remote_events=2;");
  EXPECT_EQ(at(seconds(30), 90), "-") << "still above: it stays as it was written";
  EXPECT_EQ(at(seconds(45), 90), "");
  EXPECT_EQ(at(seconds(60), 90), "-");
}

TEST_F(Rates, is_not_written_more_often_than_every_ten_seconds) {
  at(seconds(0), 0);
  EXPECT_NE(at(seconds(1), 100), "-");
  EXPECT_EQ(at(seconds(2), 100), "-");
  EXPECT_EQ(watch_.wake(), kNow + seconds(11));
  EXPECT_EQ(idle(seconds(11)), "");
  EXPECT_EQ(watch_.wake(), std::nullopt);
}

TEST_F(Rates, up_and_down_within_ten_seconds_is_one_write) {
  at(seconds(0), 0);
  EXPECT_NE(at(seconds(1), 100), "-");
  at(seconds(2), 100);
  at(seconds(3), 300);
  EXPECT_EQ(idle(seconds(11)), "-") << "it is above the limit again, as it is written";
}

TEST_F(Rates, counters_without_a_limit_and_those_that_go_backwards_are_no_rates) {
  at(seconds(0), 0, "tx_bytes");
  EXPECT_EQ(at(seconds(15), 1e12, "tx_bytes"), "-");
  at(seconds(30), 1000);
  EXPECT_EQ(at(seconds(45), 0), "-");
}

TEST_F(Rates, a_device_that_is_not_read_any_more_falls_back) {
  at(seconds(0), 0);
  EXPECT_NE(at(seconds(15), 100), "-");
  EXPECT_EQ(idle(minutes(4)), "-");
  EXPECT_EQ(idle(minutes(6)), "");
}

}  // namespace
}  // namespace pitcrew::agent
