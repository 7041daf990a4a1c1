#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/probe/kernel_log/reader.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::agent {

struct KernelFeedSettings {
  std::string source = "syslog";  // syslog, kmsg, or the path of a file or pipe
  kernel_log::Reader::Settings reader;
  Duration every = milliseconds(250);  // where nothing tells of new lines: syslog(2), files
  Duration retry = seconds(30);        // where the log can't be opened or read
};

// Reads the kernel log as it grows and hands on what it says: /dev/kmsg and pipes at once; syslog(2), where the kernel
// has written, and files four times a second. How the reading itself does is told as that of a probe, "kernel.log".
//
// Lives on the loop; ends by destruction.
class KernelFeed {
 public:
  using Found = std::function<void(std::vector<Observation>)>;
  KernelFeed(net::AsioLoop& loop, KernelFeedSettings settings, std::optional<kernel_log::Position> position,
             Found found);
  KernelFeed(const KernelFeed&) = delete;

  void start() { open(); }
  // Reads what is there now.
  void look();
  // How far it has come; nothing before the first look.
  std::optional<kernel_log::Position> position() const;
  uint64_t lines() const { return lines_before_ + (reader_ ? reader_->lines() : 0); }

 private:
  void open();
  void arm(Duration after);
  void report(const Status& status, Instant began);

  net::AsioLoop& loop_;
  const KernelFeedSettings settings_;
  std::optional<kernel_log::Position> position_;
  Found found_;
  std::optional<kernel_log::Reader> reader_;
  uint64_t lines_before_ = 0;
  net::AsioLoop::WatchPtr watch_;
  Loop::TimerPtr timer_;
  std::optional<bool> well_;  // as it was told last
  Instant told_;
};

}  // namespace pitcrew::agent
