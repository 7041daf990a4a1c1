#include "lib/net/asio_loop.hpp"

#include <atomic>
#include <csignal>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace pitcrew::net {
namespace {

using ::testing::ElementsAre;

constexpr Duration kCap = seconds(60);

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0); }
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  int ends[2] = {-1, -1};
};

TEST(AsioLoop, tasks_run_in_the_order_in_which_they_were_posted_and_never_inside_post) {
  AsioLoop loop;
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) loop.post([&, i] { order.push_back(i); });
  EXPECT_TRUE(order.empty());
  ASSERT_TRUE(loop.run_until([&] { return order.size() == 5; }, kCap));
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
}

TEST(AsioLoop, timers_run_in_the_order_of_their_times) {
  AsioLoop loop;
  std::vector<int> order;
  const auto late = loop.after(milliseconds(30), [&] { order.push_back(3); });
  const auto early = loop.after(milliseconds(10), [&] { order.push_back(2); });
  const auto now = loop.after(Duration(0), [&] { order.push_back(1); });
  ASSERT_TRUE(loop.run_until([&] { return order.size() == 3; }, kCap));
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST(AsioLoop, no_timer_runs_before_its_time) {
  AsioLoop loop;
  const Instant begin = loop.now();
  std::optional<Instant> ran;
  const auto timer = loop.after(milliseconds(20), [&] { ran = loop.now(); });
  ASSERT_TRUE(loop.run_until([&] { return ran.has_value(); }, kCap));
  EXPECT_GE(*ran - begin, milliseconds(20));
}

TEST(AsioLoop, a_dropped_timer_does_not_run) {
  AsioLoop loop;
  bool cancelled_ran = false;
  bool done = false;
  auto cancelled = loop.after(milliseconds(5), [&] { cancelled_ran = true; });
  const auto later = loop.after(milliseconds(20), [&] { done = true; });
  cancelled.reset();
  ASSERT_TRUE(loop.run_until([&] { return done; }, kCap));
  EXPECT_FALSE(cancelled_ran);
}

TEST(AsioLoop, a_task_may_drop_its_own_timer_and_others_that_are_due) {
  AsioLoop loop;
  Loop::TimerPtr own;
  Loop::TimerPtr other;
  bool other_ran = false;
  bool done = false;
  own = loop.after(milliseconds(1), [&] {
    own.reset();
    other.reset();
  });
  other = loop.after(milliseconds(1), [&] { other_ran = true; });
  const auto last = loop.after(milliseconds(10), [&] { done = true; });
  ASSERT_TRUE(loop.run_until([&] { return done; }, kCap));
  EXPECT_FALSE(other_ran);
}

TEST(AsioLoop, a_timer_may_outlive_its_loop) {
  Loop::TimerPtr timer;
  {
    AsioLoop loop;
    timer = loop.after(hours(1), [] {});
  }
  timer.reset();
}

TEST(AsioLoop, a_timer_of_the_longest_duration_never_runs) {
  AsioLoop loop;
  const auto timer = loop.after(Duration::max(), [] { FAIL(); });
  EXPECT_FALSE(loop.run_until([] { return false; }, milliseconds(10)));
}

TEST(AsioLoop, tasks_posted_by_other_threads_all_run_on_the_loop) {
  constexpr int kThreads = 4;
  constexpr int kEach = 500;
  AsioLoop loop;
  int ran = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) loop.post([&] { ++ran; });
    });
  }
  EXPECT_TRUE(loop.run_until([&] { return ran == kThreads * kEach; }, kCap));
  for (std::thread& thread : threads) thread.join();
}

TEST(AsioLoop, stop_from_another_thread_ends_run_even_when_it_comes_first) {
  AsioLoop loop;
  std::thread thread([&] { loop.stop(); });
  loop.run();
  thread.join();
  bool again = false;
  loop.post([&] {
    again = true;
    loop.stop();
  });
  loop.run();
  EXPECT_TRUE(again);
}

TEST(AsioLoop, what_is_due_after_a_stop_runs_with_the_next_run) {
  AsioLoop loop;
  bool second = false;
  loop.post([&] { loop.stop(); });
  loop.post([&] { second = true; });
  loop.run();
  EXPECT_FALSE(second);
  EXPECT_TRUE(loop.run_until([&] { return second; }, kCap));
}

TEST(AsioLoop, a_signal_calls_its_function_until_the_watch_is_dropped) {
  AsioLoop loop;
  std::vector<int> seen;
  auto watch = loop.on_signal({SIGUSR1, SIGUSR2}, [&](int signal) { seen.push_back(signal); });
  ASSERT_TRUE(watch.ok()) << watch.error().message;
  ASSERT_EQ(::raise(SIGUSR1), 0);
  ASSERT_TRUE(loop.run_until([&] { return seen.size() == 1; }, kCap));
  ASSERT_EQ(::raise(SIGUSR2), 0);
  ASSERT_TRUE(loop.run_until([&] { return seen.size() == 2; }, kCap));
  EXPECT_THAT(seen, ElementsAre(SIGUSR1, SIGUSR2));
  EXPECT_FALSE(loop.on_signal({SIGKILL}, [](int) {}).ok());
}

TEST(AsioLoop, a_readable_descriptor_is_told_as_long_as_it_is_readable) {
  AsioLoop loop;
  Pipe pipe;
  std::string got;
  auto watch = loop.watch_fd(pipe.ends[0], AsioLoop::Ready::kRead, [&] {
    char c = 0;
    if (::read(pipe.ends[0], &c, 1) == 1) got += c;  // one byte a call: level, not edge
  });
  ASSERT_TRUE(watch.ok()) << watch.error().message;
  ASSERT_EQ(::write(pipe.ends[1], "abc", 3), 3);
  ASSERT_TRUE(loop.run_until([&] { return got == "abc"; }, kCap));
  watch->reset();
  ASSERT_EQ(::write(pipe.ends[1], "d", 1), 1);
  loop.run_until([] { return false; }, milliseconds(20));
  EXPECT_EQ(got, "abc");
}

TEST(AsioLoop, the_end_of_a_pipe_is_told_and_a_watch_may_drop_itself) {
  AsioLoop loop;
  Pipe pipe;
  bool ended = false;
  AsioLoop::WatchPtr watch;
  watch = *loop.watch_fd(pipe.ends[0], AsioLoop::Ready::kRead, [&] {
    char c = 0;
    if (::read(pipe.ends[0], &c, 1) != 0) return;
    ended = true;
    watch.reset();
  });
  ::close(pipe.ends[1]);
  pipe.ends[1] = -1;
  EXPECT_TRUE(loop.run_until([&] { return ended; }, kCap));
}

TEST(AsioLoop, a_full_pipe_is_told_when_it_can_be_written_again) {
  AsioLoop loop;
  Pipe pipe;
  const std::string block(4096, 'x');
  while (::write(pipe.ends[1], block.data(), block.size()) > 0) {
  }
  int writable = 0;
  AsioLoop::WatchPtr watch;
  watch = *loop.watch_fd(pipe.ends[1], AsioLoop::Ready::kWrite, [&] {
    ++writable;
    watch.reset();
  });
  loop.run_until([] { return false; }, milliseconds(20));
  EXPECT_EQ(writable, 0);
  std::string sink(1 << 17, '\0');
  ASSERT_GT(::read(pipe.ends[0], sink.data(), sink.size()), 0);
  EXPECT_TRUE(loop.run_until([&] { return writable == 1; }, kCap));
}

TEST(AsioLoop, two_watches_of_one_descriptor_and_a_closed_original_are_no_trouble) {
  AsioLoop loop;
  Pipe pipe;
  const int copy = ::dup(pipe.ends[0]);
  bool first = false;
  bool second = false;
  const auto one = loop.watch_fd(copy, AsioLoop::Ready::kRead, [&] { first = true; });
  const auto two = loop.watch_fd(copy, AsioLoop::Ready::kRead, [&] { second = true; });
  ::close(copy);
  ASSERT_EQ(::write(pipe.ends[1], "x", 1), 1);
  EXPECT_TRUE(loop.run_until([&] { return first && second; }, kCap));
}

TEST(AsioLoop, a_file_on_a_disk_can_not_be_watched) {
  AsioLoop loop;
  const int fd = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const auto watch = loop.watch_fd(fd, AsioLoop::Ready::kRead, [] {});
  ::close(fd);
  ASSERT_FALSE(watch.ok());
  EXPECT_EQ(watch.error().code, Code::kUnsupported);
}

}  // namespace
}  // namespace pitcrew::net
