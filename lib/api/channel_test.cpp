#include "lib/api/channel.hpp"

#include <gtest/gtest.h>

namespace pitcrew::api::channel {
namespace {

TEST(Channel, every_message_of_a_launcher_survives_its_encoding) {
  const EpochId epoch{Term(3), EpochNumber(7)};
  Hello hello;
  hello.job_uid = "u";
  hello.pod_name = "p";
  hello.pod_uid = "pu";
  hello.node = "n";
  hello.boot = "b";
  hello.address = "10.0.0.1";
  hello.peer_port = 7;
  hello.gpus = 8;
  hello.seen = epoch;
  hello.running = true;
  hello.held = {{Step(20), 2, Place::kMemory}};
  Progress progress{epoch,   Step(5), 40,      "training",   2.5,  1000.5, 100,
                    Step(1), Step(4), Step(2), "own memory", true, Rank(3)};
  Exited exited{epoch,   Rank(1), ExitKind::kSignaled, 11, "killed by SIGSEGV", {"a", "b"}, "ValueError: x",
                Step(9), true};
  Stalled stalled{epoch, Step(9), "training", 16, 15, {{Rank(0), 12, true}, {Rank(1), 11, false, true}}, "stacks"};
  const std::vector<FromLauncher> messages{hello,
                                           progress,
                                           exited,
                                           stalled,
                                           Unreachable{epoch, Slot(1), 4.5},
                                           Saved{epoch, Step(9), true, "/c", 12, "r"},
                                           Stopped{epoch, true},
                                           Aborted{epoch, true, "m"},
                                           Evidence{epoch, Rank(1), "nonfinite", "loss is NaN", Rank(2)},
                                           Evidence{epoch, Rank(1), "spike", "m", std::nullopt, Step(42), "d1"},
                                           Stacks{"r", "text"}};
  for (const FromLauncher& message : messages) {
    const std::string text = encode(message);
    const auto decoded = decode_from_launcher(text);
    ASSERT_TRUE(decoded.ok()) << text << decoded.error().message;
    EXPECT_EQ(decoded->index(), message.index());
    EXPECT_EQ(encode(*decoded), text);
  }
}

TEST(Channel, every_message_to_a_launcher_survives_its_encoding) {
  const EpochId id{Term(3), EpochNumber(7)};
  Epoch epoch;
  epoch.id = id;
  epoch.job = {"u", "ns", "name", Term(3)};
  epoch.slot = Slot(1);
  epoch.world_size = 2;
  epoch.table = {{Slot(0), "p0", "n0", "10.0.0.1", 71, Rank(0), 1}, {Slot(1), "p1", "n1", "10.0.0.2", 72, Rank(1), 1}};
  epoch.master_address = "10.0.0.1";
  epoch.master_port = 29501;
  epoch.key = "a2V5";
  epoch.resume = ResumePoint{Step(40), 3, Place::kMemory};
  epoch.replay = ReplayPoint{Step(42), Rank(1), "n0", "d1", false};
  epoch.checkpoint.path = "/c";
  epoch.checkpoint.every_steps = 10;
  epoch.checkpoint.memory_steps = 2;
  epoch.stall_after = seconds(20);
  epoch.start_within = minutes(10);
  epoch.slow_below = 0.7;
  const std::vector<ToLauncher> messages{epoch, Stop{id, true, seconds(30), "suspended"}, Save{id, "r"},
                                         Diagnose{id, "r"}, Finish{id, false}};
  for (const ToLauncher& message : messages) {
    const std::string text = encode(message);
    const auto decoded = decode_to_launcher(text);
    ASSERT_TRUE(decoded.ok()) << text << decoded.error().message;
    EXPECT_EQ(encode(*decoded), text);
  }
}

TEST(Channel, fields_of_a_newer_version_are_passed_over_and_missing_epochs_refused) {
  EXPECT_TRUE(
      decode_from_launcher(R"({"type":"stopped","epoch":{"term":1,"number":2},"clean":true,"colour":"red"})").ok());
  EXPECT_FALSE(decode_from_launcher(R"({"type":"stopped","clean":true})").ok());
  EXPECT_FALSE(decode_from_launcher(R"({"type":"teleport"})").ok());
  EXPECT_FALSE(decode_from_launcher(std::string(kMaxFromLauncher + 1, ' ')).ok());
}

TEST(Channel, output_that_is_not_utf8_is_sent_all_the_same) {
  Exited exited;
  exited.last_lines = {"broken \xff\xfe bytes"};
  EXPECT_TRUE(decode_from_launcher(encode(FromLauncher(exited))).ok());
}

}  // namespace
}  // namespace pitcrew::api::channel
