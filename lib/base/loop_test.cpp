#include "lib/base/loop.hpp"

#include <string>

#include <gtest/gtest.h>

namespace pitcrew {
namespace {

TEST(VirtualLoop, tasks_run_in_the_order_of_time_and_then_of_arrival) {
  VirtualLoop loop;
  const Instant start = loop.now();
  std::string order;
  const auto late = loop.after(seconds(2), [&] { order += "c"; });
  const auto early = loop.after(seconds(1), [&] { order += "b"; });
  loop.post([&] { order += "a"; });
  const auto same = loop.after(seconds(2), [&] { order += "d"; });
  loop.run_for(seconds(3));
  EXPECT_EQ(order, "abcd");
  EXPECT_EQ(loop.now(), start + seconds(3));
}

TEST(VirtualLoop, a_dropped_timer_never_fires_even_from_inside_a_task_of_the_same_time) {
  VirtualLoop loop;
  bool fired = false;
  Loop::TimerPtr victim;
  const auto killer = loop.after(seconds(1), [&] { victim.reset(); });
  victim = loop.after(seconds(1), [&] { fired = true; });
  loop.run_for(seconds(2));
  EXPECT_FALSE(fired);
}

TEST(VirtualLoop, a_task_may_destroy_the_timer_that_started_it) {
  VirtualLoop loop;
  int runs = 0;
  Loop::TimerPtr timer;
  std::function<void()> again = [&] {
    if (++runs < 3) timer = loop.after(seconds(1), again);
  };
  timer = loop.after(seconds(1), again);
  loop.run_for(seconds(10));
  EXPECT_EQ(runs, 3);
}

TEST(VirtualLoop, a_timer_may_outlive_its_loop) {
  Loop::TimerPtr timer;
  {
    VirtualLoop loop;
    timer = loop.after(seconds(1), [] {});
  }
  timer.reset();
}

}  // namespace
}  // namespace pitcrew
