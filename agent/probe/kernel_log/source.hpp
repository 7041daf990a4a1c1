#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::agent::kernel_log {

// One line of the kernel log.
struct Record {
  Duration since_boot{0};  // what the kernel wrote in front of it, to the microsecond
  std::string text;
};

// Where the kernel log comes from. One owner, one thread; never blocks.
class Source {
 public:
  virtual ~Source() = default;
  // What the log holds beyond what this source gave before, oldest first. Some sources begin anew at every call (all of
  // the ring buffer); the reader leaves out what it has seen.
  virtual Result<std::vector<Record>> read() = 0;
};

// The kernel's ring buffer by syslog(2), which needs CAP_SYSLOG and nothing else, and takes nothing out of it. Gives
// all of it at a call after something was written, and now and then besides; else nothing.
std::unique_ptr<Source> syslog_source();

// A file descriptor that is not blocking: lines as syslog(2) gives them ("<6>[    1.234567] text") or as /dev/kmsg does
// ("6,1234,1234567,-;text"); a pipe of a forwarder, or of a test. Takes the descriptor over.
std::unique_ptr<Source> descriptor_source(int descriptor);

// Takes a buffer of syslog(2) apart: lines with and without priority; a line without a time continues the one before.
std::vector<Record> split_syslog(std::string_view buffer);
// "6,1234,1234567,-;text"; nothing for a continuation or another form.
std::optional<Record> split_kmsg(std::string_view line);

}  // namespace pitcrew::agent::kernel_log
