#pragma once

#include <memory>
#include <string>
#include <thread>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::agent::kernel_log {

// Tells for next to nothing whether the kernel has written to its log, and takes nothing out of it.
//
// A thread is parked in an edge-triggered epoll on /proc/kmsg, which the kernel wakes for each line; /proc/kmsg is a
// file and no device, so it opens with CAP_SYSLOG where the device cgroup refuses /dev/kmsg. Whether the thread was
// woken is read off its processor clock: where another program (rsyslog's imklog) has already taken the line out,
// epoll reports nothing, but the thread has run. See docs/design/0013.
//
// One owner, which asks from one thread; ends by destruction, which joins the parked thread.
class Bell {
 public:
  struct Settings {
    std::string path = "/proc/kmsg";
    Duration pause = milliseconds(100);  // between wake-ups in a flood of lines
  };
  static Result<std::unique_ptr<Bell>> hang(Settings settings);
  ~Bell();
  Bell(const Bell&) = delete;

  // Whether a line may have been written since the last call; at the first call it is true. Never misses one; may say
  // so twice for one line.
  Result<bool> rang();

 private:
  Bell(int log, int epoll, int end, Duration pause);
  void stand_by() const;

  const int log_, epoll_, end_;
  const Duration pause_;
  Duration ran_{-1};  // of the thread's processor clock, as it was seen last
  std::thread thread_;
};

}  // namespace pitcrew::agent::kernel_log
