#include "agent/probe/kernel_log/bell.hpp"

#include <cstdlib>
#include <ctime>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/probe/kernel_log/source.hpp"
#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::agent::kernel_log {
namespace {

void wait(Duration time) { ::poll(nullptr, 0, static_cast<int>(time / milliseconds(1))); }

// Whether it rings within ten seconds.
bool rings(Bell& bell) {
  for (int i = 0; i < 1000; ++i) {
    const auto rang = bell.rang();
    if (!rang) ADD_FAILURE() << rang.error().message;
    if (!rang || *rang) return true;
    wait(milliseconds(10));
  }
  return false;
}
// Until it has said nothing for a while, as after lines that were read.
void settle(Bell& bell) {
  for (int quiet = 0; quiet < 10;) {
    quiet = *bell.rang() ? 0 : quiet + 1;
    wait(milliseconds(10));
  }
}

// A pipe wakes its watchers like /proc/kmsg, and what is in it can be taken out by others.
class KernelLogBell : public testing::Test {
 protected:
  KernelLogBell() {
    const std::string kmsg = folder_.path() + "/kmsg";
    EXPECT_EQ(::mkfifo(kmsg.c_str(), 0600), 0);
    log_ = ::open(kmsg.c_str(), O_RDWR | O_NONBLOCK);
    auto bell = Bell::hang({kmsg, milliseconds(1)});
    EXPECT_TRUE(bell) << bell.error().message;
    bell_ = *std::move(bell);
  }
  ~KernelLogBell() override { ::close(log_); }
  void write_line() { ASSERT_EQ(::write(log_, "line\n", 5), 5); }
  void take_out() {
    char line[5];
    ASSERT_EQ(::read(log_, line, sizeof line), 5);
  }

  TempFolder folder_;
  int log_ = -1;
  std::unique_ptr<Bell> bell_;
};

TEST_F(KernelLogBell, rings_at_first_and_then_for_each_line_though_none_is_read) {
  EXPECT_TRUE(*bell_->rang());
  settle(*bell_);
  for (int i = 0; i < 20; ++i) {
    write_line();
    EXPECT_TRUE(rings(*bell_)) << i;
    settle(*bell_);
  }
}

TEST_F(KernelLogBell, rings_where_somebody_else_takes_each_line_out) {
  settle(*bell_);
  for (int i = 0; i < 20; ++i) {
    write_line();
    take_out();
    EXPECT_TRUE(rings(*bell_)) << i;
    settle(*bell_);
  }
}

TEST_F(KernelLogBell, is_silent_where_nothing_is_written) {
  write_line();
  settle(*bell_);
  int rang = 0;
  for (int i = 0; i < 50; ++i) {
    rang += *bell_->rang();
    wait(milliseconds(10));
  }
  EXPECT_LE(rang, 1) << "a thread that was late on a busy machine is told of once";
}

TEST(KernelLogBellFile, that_is_not_there_is_an_error) {
  const auto bell = Bell::hang({"/nowhere/kmsg"});
  ASSERT_FALSE(bell);
  EXPECT_NE(bell.error().message.find("/nowhere/kmsg"), std::string::npos);
}

// This machine's log, where it may be read and written; nothing is taken out of it.
TEST(SyslogSource, gives_a_line_of_this_machines_log_within_a_second) {
  const int kernel = ::open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
  if (kernel < 0) GTEST_SKIP() << "/dev/kmsg can't be written here";
  const auto source = syslog_source();
  if (!source->read()) GTEST_SKIP() << "syslog(2) is refused here";
  const std::string text = "pitcrew: a test's line " + std::to_string(::getpid()) + " " + std::to_string(std::rand());
  const std::string line = "<7>" + text + "\n";  // without its end the kernel would keep it for what follows
  ASSERT_EQ(::write(kernel, line.data(), line.size()), static_cast<ssize_t>(line.size()));
  ::close(kernel);
  bool found = false;
  for (int i = 0; i < 19 && !found; ++i) {  // fewer than the calls after which it reads anyway
    wait(milliseconds(50));
    const auto records = source->read();
    ASSERT_TRUE(records) << records.error().message;
    for (const Record& record : *records) found = found || record.text == text;
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace pitcrew::agent::kernel_log
