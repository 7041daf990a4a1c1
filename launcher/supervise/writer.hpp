#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "launcher/supervise/process.hpp"
#include "lib/base/loop.hpp"

namespace pitcrew::launcher {

// Writes to stdout, and to the ranks' log files, from a thread of its own, so that a slow reader or disk holds this
// thread and never the loop. What waits is bounded by its users: they stop handing over while full() says so, and are
// told once there is room again.
//
// Made, used and destroyed on the loop's thread. Its end waits for nobody: what a reader has not taken by then is
// dropped, so drain() comes first where that matters.
class OutputWriter {
 public:
  struct Settings {
    size_t high = 256 * 1024;  // full from here on
    size_t low = 64 * 1024;    // room again
  };

  OutputWriter(Loop& loop, int stdout_fd, Settings settings, std::function<void()> on_room);
  ~OutputWriter();
  OutputWriter(const OutputWriter&) = delete;
  OutputWriter& operator=(const OutputWriter&) = delete;

  void to_stdout(std::string bytes);
  void to_log(std::shared_ptr<Descriptor> log, std::string bytes);

  bool full() const;
  size_t waiting() const;
  uint64_t written() const { return written_; }      // bytes that stdout has taken
  uint64_t lost_log_bytes() const { return lost_; }  // that a rank's log file refused (disk full)
  // Waits, on the calling thread, until all has been taken or the time is over; whether it has.
  bool drain(Duration at_most);

 private:
  struct Item {
    std::shared_ptr<Descriptor> log;  // unset: stdout
    std::string bytes;
  };
  void push(Item item);
  void run();
  void write_stdout(std::string_view bytes);
  void write_log(int fd, std::string_view bytes);

  Loop& loop_;
  const Settings settings_;
  // The owner's function; the thread's posts reach it through this, so that a late one finds nothing.
  std::shared_ptr<std::function<void()>> on_room_;
  int stdout_ = -1;
  Descriptor own_stdout_;  // the same pipe or terminal opened anew, so that it can be made not blocking for us alone
  Descriptor wake_;        // tells a thread that waits for the reader that it is over

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  size_t waiting_ = 0;
  bool was_full_ = false;
  bool stopping_ = false;
  std::atomic<uint64_t> written_{0};
  std::atomic<uint64_t> lost_{0};
  std::thread thread_;
};

}  // namespace pitcrew::launcher
