#include "operator/decide/launcher_view.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

using namespace api::channel;

const Instant kNow(seconds(1'700'000'000));

EpochId epoch(uint64_t number) { return {Term(1), EpochNumber(number)}; }

Hello hello(const std::string& boot, uint64_t seen, bool running = false) {
  Hello hello;
  hello.pod_name = "job-abcde-0";
  hello.pod_uid = "uid";
  hello.boot = boot;
  hello.seen = epoch(seen);
  hello.running = running;
  return hello;
}

Progress progress(uint64_t number, uint64_t step, const std::string& phase = "training") {
  Progress progress;
  progress.epoch = epoch(number);
  progress.step = Step(step);
  progress.phase = phase;
  return progress;
}

TEST(LauncherView, reconnect_of_the_same_boot_keeps_what_was_said) {
  LauncherView view;
  view.hello(hello("a", 1, true), kNow);
  view.receive(progress(1, 10), kNow);
  Exited exit;
  exit.epoch = epoch(1);
  view.receive(exit, kNow);
  view.disconnected(kNow, kNow + seconds(1));
  EXPECT_EQ(view.silent_since, kNow);
  view.hello(hello("a", 1), kNow + seconds(3));
  EXPECT_FALSE(view.silent_since);
  EXPECT_EQ(view.boots, 1u);
  EXPECT_EQ(view.exited.size(), 1u);
  EXPECT_TRUE(view.training);
}

TEST(LauncherView, new_boot_starts_from_its_hello) {
  LauncherView view;
  view.hello(hello("a", 1, true), kNow);
  view.receive(progress(1, 10), kNow);
  view.hello(hello("b", 1), kNow + seconds(9));
  EXPECT_EQ(view.boots, 2u);
  EXPECT_EQ(view.booted, kNow + seconds(9));
  EXPECT_FALSE(view.progress);
  EXPECT_FALSE(view.running);
}

TEST(LauncherView, words_about_an_older_epoch_are_passed_over) {
  LauncherView view;
  view.hello(hello("a", 3, true), kNow);
  EXPECT_FALSE(view.receive(progress(2, 10), kNow));
  Exited exit;
  exit.epoch = epoch(2);
  EXPECT_FALSE(view.receive(exit, kNow));
  EXPECT_TRUE(view.exited.empty());
}

TEST(LauncherView, an_exit_may_be_the_first_word_about_an_epoch) {
  LauncherView view;
  view.hello(hello("a", 1, true), kNow);
  view.receive(progress(1, 10), kNow);
  Exited exit;
  exit.epoch = epoch(2);
  EXPECT_TRUE(view.receive(exit, kNow));
  EXPECT_EQ(view.seen, epoch(2));
  EXPECT_FALSE(view.progress);
  EXPECT_EQ(view.exited.size(), 1u);
}

TEST(LauncherView, a_report_of_the_same_phase_is_no_reason_to_decide) {
  LauncherView view;
  view.hello(hello("a", 0), kNow);
  EXPECT_TRUE(view.receive(progress(1, 10), kNow));
  EXPECT_FALSE(view.receive(progress(1, 11), kNow + seconds(1)));
  EXPECT_EQ(view.advanced, kNow + seconds(1));
}

TEST(LauncherView, ranks_without_the_page_count_as_training) {
  LauncherView view;
  view.hello(hello("a", 1, true), kNow);
  view.receive(progress(1, 0, "starting"), kNow);
  EXPECT_FALSE(view.training);
  EXPECT_TRUE(view.receive(progress(1, 0, std::string(kWithoutPage)), kNow + seconds(30)));
  EXPECT_EQ(view.training, kNow + seconds(30));
  EXPECT_EQ(view.restored, kNow + seconds(30));
}

TEST(LauncherView, quiet_launcher_whose_connection_ends_is_not_called_long_silent) {
  LauncherView view;
  view.hello(hello("a", 0), kNow);
  view.disconnected(kNow, kNow + minutes(30));
  EXPECT_EQ(view.silent_since, kNow + minutes(30) - LauncherView::kPingTimeout);
}

TEST(LauncherView, claim_is_read_from_the_folder_of_a_checkpoint) {
  EXPECT_EQ(claim_of_path("/checkpoints/step-120-c7"), 7u);
  EXPECT_EQ(claim_of_path("/checkpoints/step-120-c7/"), 7u);
  EXPECT_EQ(claim_of_path("/checkpoints/step-120"), 0u);
  EXPECT_EQ(claim_of_path(""), 0u);
}

}  // namespace
}  // namespace pitcrew::control
