#include "agent/judge/rates.hpp"

#include <gtest/gtest.h>

#include "agent/judge/builtin_policy.hpp"

namespace pitcrew::agent {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

class Rates : public testing::Test {
 protected:
  // Reads a counter of a device at a time; "device counter=rate a second" of what is told then, "-" where nothing
  // changes.
  std::string at(Duration after, double value, const std::string& counter = "unresponsive_remote_events") {
    Observation reading;
    reading.kind = "efa.port";
    reading.device = "rdmap0s29";
    reading.reading = true;
    reading.values[counter] = value;
    reading.time = kNow + after;
    return told(watch_.take({&reading, 1}, builtin_policy(), kNow + after));
  }
  std::string idle(Duration after) { return told(watch_.take({}, builtin_policy(), kNow + after)); }
  std::string told(bool changed) const {
    if (!changed) return "-";
    std::string out;
    for (const auto& rate : watch_.rates())
      out += rate.device + " " + rate.counter + "=" + to_string(Value(rate.per_second)) + ";";
    return out;
  }
  RateWatch watch_;
};

TEST_F(Rates, a_healthy_node_tells_nothing) {
  EXPECT_EQ(at(seconds(0), 500), "-") << "an old counter at the agent's start is no rate";
  for (int i = 1; i < 100; ++i) EXPECT_EQ(at(seconds(15 * i), 500 + i), "-") << "4 a minute, and 60 are let pass";
}

TEST_F(Rates, a_rate_is_told_when_it_crosses_the_limit_and_when_it_falls_back) {
  at(seconds(0), 0);
  EXPECT_EQ(at(seconds(15), 30), "rdmap0s29 unresponsive_remote_events=2;");
  EXPECT_EQ(at(seconds(30), 75), "-") << "still above, and no other rate: it stays as it was told";
  EXPECT_EQ(at(seconds(45), 75), "");
  EXPECT_EQ(at(seconds(60), 75), "-");
}

TEST_F(Rates, a_rate_that_has_become_another_one_is_told_again) {
  at(seconds(0), 0);
  at(seconds(15), 30);
  EXPECT_EQ(at(seconds(30), 180), "rdmap0s29 unresponsive_remote_events=10;");
  EXPECT_EQ(at(seconds(45), 225), "rdmap0s29 unresponsive_remote_events=3;");
}

TEST_F(Rates, counters_without_a_limit_and_those_that_go_backwards_are_no_rates) {
  at(seconds(0), 0, "tx_bytes");
  EXPECT_EQ(at(seconds(15), 1e12, "tx_bytes"), "-");
  at(seconds(30), 1000);
  EXPECT_EQ(at(seconds(45), 0), "-");
}

TEST_F(Rates, a_start_of_the_agent_begins_anew) {
  at(seconds(0), 0);
  Observation start;
  start.kind = kinds::kAgentStart;
  start.time = kNow + seconds(5);
  watch_.take({&start, 1}, builtin_policy(), start.time);
  EXPECT_EQ(at(seconds(15), 1000), "-");
}

TEST_F(Rates, a_device_that_is_not_read_any_more_falls_back) {
  at(seconds(0), 0);
  EXPECT_NE(at(seconds(15), 100), "-");
  EXPECT_EQ(idle(minutes(4)), "-");
  EXPECT_EQ(idle(minutes(6)), "");
}

}  // namespace
}  // namespace pitcrew::agent
