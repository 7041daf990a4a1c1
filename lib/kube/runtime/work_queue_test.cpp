#include "lib/kube/runtime/work_queue.hpp"

#include <gtest/gtest.h>

#include "lib/base/random.hpp"

namespace pitcrew::kube {
namespace {

class WorkQueueTest : public testing::Test {
 protected:
  std::string take() {
    const auto item = queue.take();
    return item ? item->key.name : "-";
  }
  static ObjectKey key(const std::string& name) { return {"ns", name}; }

  ManualClock clock;
  WorkQueue queue{clock};
};

TEST_F(WorkQueueTest, many_adds_are_one_run) {
  for (int i = 0; i < 5; ++i) queue.add(key("a"));
  EXPECT_EQ(take(), "a");
  EXPECT_EQ(take(), "-");
}

TEST_F(WorkQueueTest, a_key_is_never_worked_on_twice_at_once_and_no_add_is_lost) {
  queue.add(key("a"));
  EXPECT_EQ(take(), "a");
  queue.add(key("a"));
  queue.add(key("a"));
  EXPECT_EQ(take(), "-");
  queue.done(key("a"));
  EXPECT_EQ(take(), "a");
  queue.done(key("a"));
  EXPECT_EQ(take(), "-");
}

TEST_F(WorkQueueTest, urgent_work_comes_first_and_equals_in_their_order) {
  queue.add(key("initial"), priority::kInitial);
  queue.add(key("b"));
  queue.add(key("a"));
  queue.add(key("failed-node"), priority::kUrgent);
  EXPECT_EQ(take(), "failed-node");
  EXPECT_EQ(take(), "b");
  EXPECT_EQ(take(), "a");
  EXPECT_EQ(take(), "initial");
}

TEST_F(WorkQueueTest, a_raised_key_goes_to_the_end_of_its_new_level_and_is_never_lowered) {
  queue.add(key("a"), priority::kInitial);
  queue.add(key("b"));
  queue.add(key("a"));
  queue.add(key("b"), priority::kInitial);
  EXPECT_EQ(take(), "b");
  EXPECT_EQ(take(), "a");
}

TEST_F(WorkQueueTest, of_many_waits_the_earliest_counts) {
  queue.add_after(key("a"), seconds(10));
  queue.add_after(key("a"), seconds(5));
  queue.add_after(key("a"), seconds(20));
  EXPECT_EQ(queue.next_ready(), clock.now() + seconds(5));
  EXPECT_EQ(take(), "-");
  clock.advance(seconds(5));
  EXPECT_EQ(take(), "a");
  queue.done(key("a"));
  clock.advance(minutes(1));
  EXPECT_EQ(take(), "-");
  EXPECT_FALSE(queue.next_ready());
}

TEST_F(WorkQueueTest, bug_17_back_off_doubles_is_capped_and_is_forgotten_on_success) {
  const auto wait = [&] {
    queue.add_failed(key("a"));
    const Duration wait = *queue.next_ready() - clock.now();
    clock.advance(wait);
    EXPECT_EQ(take(), "a");
    queue.done(key("a"));
    return wait;
  };
  EXPECT_EQ(wait(), milliseconds(5));
  EXPECT_EQ(wait(), milliseconds(10));
  EXPECT_EQ(wait(), milliseconds(20));
  EXPECT_EQ(queue.failures(key("a")), 3);
  for (int i = 0; i < 30; ++i) EXPECT_LE(wait(), minutes(5));
  EXPECT_EQ(wait(), minutes(5));
  queue.forget(key("a"));
  EXPECT_EQ(wait(), milliseconds(5));
}

TEST_F(WorkQueueTest, a_server_that_says_when_is_waited_for) {
  queue.add_failed(key("a"), priority::kNormal, seconds(3));
  EXPECT_EQ(queue.next_ready(), clock.now() + seconds(3));
}

TEST_F(WorkQueueTest, shutdown_lets_what_runs_finish_and_takes_nothing_new) {
  queue.add(key("a"));
  queue.add(key("b"));
  EXPECT_EQ(take(), "a");
  queue.add(key("a"));
  queue.shut_down();
  queue.add(key("c"));
  queue.add_after(key("d"), seconds(1));
  EXPECT_EQ(take(), "-");
  EXPECT_FALSE(queue.drained());
  queue.done(key("a"));
  EXPECT_TRUE(queue.drained());
}

TEST_F(WorkQueueTest, a_stuck_worker_shows) {
  queue.add(key("a"));
  take();
  clock.advance(seconds(7));
  EXPECT_EQ(queue.longest_running(), seconds(7));
}

// Random adds, waits and finishes against the two guarantees.
TEST_F(WorkQueueTest, guarantees_hold_under_random_use) {
  constexpr uint64_t kSeed = 42;
  SCOPED_TRACE(kSeed);
  Random random(kSeed);
  std::set<std::string> working;
  std::set<std::string> wanted;  // added since its last run began
  for (int i = 0; i < 20'000; ++i) {
    const std::string name(1, static_cast<char>('a' + random.below(6)));
    switch (random.below(5)) {
      case 0:
        queue.add(key(name), static_cast<int>(random.below(3)) - 1);
        wanted.insert(name);
        break;
      case 1:
        queue.add_after(key(name), milliseconds(random.below(50)));
        wanted.insert(name);
        break;
      case 2:
        if (const auto item = queue.take()) {
          EXPECT_TRUE(working.insert(item->key.name).second) << item->key.name << " is worked on twice";
          wanted.erase(item->key.name);
        }
        break;
      case 3:
        if (!working.empty()) {
          queue.done(key(*working.begin()));
          working.erase(working.begin());
        }
        break;
      default:
        clock.advance(milliseconds(random.below(10)));
    }
  }
  for (const std::string& name : working) queue.done(key(name));
  clock.advance(seconds(1));
  while (const auto item = queue.take()) {
    wanted.erase(item->key.name);
    queue.done(item->key);
  }
  EXPECT_TRUE(wanted.empty()) << *wanted.begin() << " was lost";
}

}  // namespace
}  // namespace pitcrew::kube
