#include "lib/base/progress_page.hpp"

#include <cmath>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

namespace pitcrew::page {
namespace {

class ProgressPage : public ::testing::Test {
 protected:
  std::string path_ = ::testing::TempDir() + "pitcrew-page-" + std::to_string(getpid());
  void TearDown() override { unlink(path_.c_str()); }
};

TEST_F(ProgressPage, what_a_rank_writes_the_launcher_reads) {
  auto watcher = Watcher::create(path_, 2, {Term(3), EpochNumber(7)});
  ASSERT_TRUE(watcher.ok()) << watcher.error().message;
  EXPECT_TRUE(std::isnan(watcher->line(1).loss));
  auto writer = Writer::open(path_, 1);
  ASSERT_TRUE(writer.ok()) << writer.error().message;
  writer->set_phase(Phase::kTraining);
  writer->enter_collective(42);
  writer->step_done(Step(9), 72, 2.5);
  writer->set_gauge("grad_norm", 0.25);
  writer->set_gauge("grad_norm", 0.5);
  writer->set_durable(Step(8));
  const LineCopy line = watcher->line(1);
  EXPECT_EQ(line.step, Step(9));
  EXPECT_EQ(line.samples, 72u);
  EXPECT_EQ(line.loss, 2.5);
  EXPECT_EQ(line.phase, Phase::kTraining);
  EXPECT_TRUE(line.in_collective);
  EXPECT_EQ(line.collective, 42u);
  EXPECT_EQ(line.updates, 3u);
  EXPECT_EQ(watcher->line(0).updates, 0u);
  const std::vector<std::pair<std::string, double>> gauges{{"grad_norm", 0.5}};
  EXPECT_EQ(watcher->gauges(1), gauges);
  EXPECT_EQ(watcher->header().durable_step, Step(8));
  EXPECT_EQ(watcher->header().memory_step, std::nullopt);
  EXPECT_EQ(watcher->header().epoch, (EpochId{Term(3), EpochNumber(7)}));
}

TEST_F(ProgressPage, a_device_that_has_not_done_all_it_was_given_is_told_from_one_that_has) {
  auto watcher = Watcher::create(path_, 1, {});
  auto writer = Writer::open(path_, 0);
  ASSERT_TRUE(watcher.ok() && writer.ok());
  writer->set_gpu_counter(7);
  EXPECT_EQ(watcher->line(0).gpu_behind(), std::nullopt) << "a program that says nothing of what it queued";
  writer->set_gpu_queued((uint64_t{1} << 32) + 9);
  writer->set_gpu_counter((uint64_t{1} << 32) + 8);
  EXPECT_EQ(watcher->line(0).gpu_behind(), true);
  writer->set_gpu_counter((uint64_t{1} << 32) + 9);
  EXPECT_EQ(watcher->line(0).gpu_behind(), false);
  EXPECT_EQ(watcher->line(0).updates, 0u) << "a device that moves doesn't show that the host does";
}

TEST_F(ProgressPage, requests_of_the_launcher_reach_the_rank) {
  auto watcher = Watcher::create(path_, 1, {});
  ASSERT_TRUE(watcher.ok());
  auto writer = Writer::open(path_, 0);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(writer->save_requested(), 0u);
  watcher->request_save();
  watcher->request_stop();
  EXPECT_EQ(writer->save_requested(), 1u);
  EXPECT_EQ(writer->stop_requested(), 1u);
}

TEST_F(ProgressPage, a_new_epochs_page_is_not_written_by_the_old_epochs_process) {
  auto old_watcher = Watcher::create(path_, 1, {Term(1), EpochNumber(1)});
  auto old_writer = Writer::open(path_, 0);
  auto watcher = Watcher::create(path_, 1, {Term(1), EpochNumber(2)});
  ASSERT_TRUE(watcher.ok());
  old_writer->step_done(Step(5), 5, 1.0);
  EXPECT_EQ(watcher->line(0).step, Step(0));
}

TEST_F(ProgressPage, a_rank_that_has_no_line_and_a_file_that_is_no_page_are_refused) {
  auto watcher = Watcher::create(path_, 1, {});
  EXPECT_FALSE(Writer::open(path_, 1).ok());
  EXPECT_FALSE(Writer::open("/proc/self/cmdline", 0).ok());
}

TEST_F(ProgressPage, updates_from_two_threads_of_a_rank_are_all_counted) {
  auto watcher = Watcher::create(path_, 1, {});
  auto writer = Writer::open(path_, 0);
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) writer->beat();
  });
  for (int i = 0; i < 1000; ++i) writer->enter_collective(static_cast<uint64_t>(i));
  other.join();
  EXPECT_EQ(watcher->line(0).updates, 2000u);
}

}  // namespace
}  // namespace pitcrew::page
