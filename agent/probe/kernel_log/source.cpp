#include "agent/probe/kernel_log/source.hpp"

#include <cerrno>
#include <utility>

#include <sys/klog.h>
#include <unistd.h>

#include "agent/probe/kernel_log/bell.hpp"
#include "agent/probe/kernel_log/scan.hpp"

namespace pitcrew::agent::kernel_log {
namespace {

constexpr int kReadAll = 3;      // SYSLOG_ACTION_READ_ALL
constexpr int kSizeUnread = 9;   // SYSLOG_ACTION_SIZE_UNREAD
constexpr int kSizeBuffer = 10;  // SYSLOG_ACTION_SIZE_BUFFER
// Calls that may find nothing new before all is read nonetheless. A size can be the same by chance; a bell rings.
constexpr int kReadAnyway = 20, kReadAnywayWithBell = 80;
constexpr size_t kMaxLine = 16 * 1024;

// "[    1.234567] text" → time and text. The kernel may add the task ("[ 1.234567][ T42] text").
std::optional<Record> split_time(std::string_view line) {
  Scan scan(line);
  if (!scan.skip("[")) return std::nullopt;
  scan.spaces();
  const auto seconds_part = scan.number();
  if (!seconds_part || !scan.skip(".")) return std::nullopt;
  const size_t before = scan.rest().size();
  const auto fraction = scan.number();
  if (!fraction || before - scan.rest().size() != 6 || !scan.skip("]")) return std::nullopt;
  if (scan.skip("[") && !scan.past("]")) return std::nullopt;
  scan.skip(" ");
  return Record{seconds(*seconds_part) + std::chrono::microseconds(*fraction), std::string(scan.rest())};
}

// Reading all of the log costs milliseconds, so it is done when something was written: the bell says so, or, where
// /proc/kmsg can't be opened, how much of the log nobody has taken out (which costs half as much as reading).
class SyslogSource final : public Source {
 public:
  explicit SyslogSource(std::unique_ptr<Bell> bell) : bell_(std::move(bell)) {}

  Result<std::vector<Record>> read() override {
    PITCREW_ASSIGN(const bool written, bell_ ? bell_->rang() : grew());
    if (!written && ++unchanged_ < (bell_ ? kReadAnywayWithBell : kReadAnyway)) return std::vector<Record>();
    unchanged_ = 0;
    if (buffer_.empty()) {
      const int size = klogctl(kSizeBuffer, nullptr, 0);
      if (size < 0) return failed(errno);
      buffer_.resize(static_cast<size_t>(size));
    }
    const int length = klogctl(kReadAll, buffer_.data(), static_cast<int>(buffer_.size()));
    if (length < 0) return failed(errno);
    return split_syslog(std::string_view(buffer_.data(), static_cast<size_t>(length)));
  }

 private:
  // Nothing unread: somebody takes the lines out, and only reading tells.
  Result<bool> grew() {
    const int unread = klogctl(kSizeUnread, nullptr, 0);
    if (unread < 0) return failed(errno);
    return std::exchange(unread_, unread) != unread || unread == 0;
  }
  static Error failed(int number) {
    Error error = errno_error("reading the kernel log by syslog(2)", number);
    if (number == EPERM) error.message += "; the agent's container needs the capability CAP_SYSLOG";
    return error;
  }

  std::unique_ptr<Bell> bell_;
  std::string buffer_;
  int unread_ = -1;
  int unchanged_ = 0;
};

class DescriptorSource final : public Source {
 public:
  explicit DescriptorSource(int descriptor) : descriptor_(descriptor) {}
  ~DescriptorSource() override { ::close(descriptor_); }

  Result<std::vector<Record>> read() override {
    std::vector<Record> records;
    char chunk[16 * 1024];
    while (records.size() < 100'000) {
      const ssize_t length = ::read(descriptor_, chunk, sizeof chunk);
      if (length == 0) break;
      if (length < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) break;
        // Of /dev/kmsg: records were overwritten before they were read; the next read goes on with the oldest.
        if (errno == EPIPE) continue;
        return errno_error("reading the kernel log", errno);
      }
      take(std::string_view(chunk, static_cast<size_t>(length)), records);
    }
    return records;
  }

 private:
  void take(std::string_view bytes, std::vector<Record>& records) {
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      if (rest_.size() < kMaxLine) rest_ += bytes.substr(0, end);
      if (end == std::string_view::npos) return;
      bytes.remove_prefix(end + 1);
      if (auto record = split_kmsg(rest_)) {
        records.push_back(std::move(*record));
      } else if (auto lines = split_syslog(rest_); !lines.empty()) {
        records.push_back(std::move(lines.front()));
      }
      rest_.clear();
    }
  }

  int descriptor_;
  std::string rest_;  // of a line whose end has not come yet
};

}  // namespace

std::vector<Record> split_syslog(std::string_view buffer) {
  std::vector<Record> records;
  while (!buffer.empty()) {
    const size_t end = buffer.find('\n');
    std::string_view line = buffer.substr(0, end);
    buffer.remove_prefix(end == std::string_view::npos ? buffer.size() : end + 1);
    if (!line.empty() && line.front() == '<') {
      const size_t close = line.find('>');
      if (close != std::string_view::npos && close <= 5) line.remove_prefix(close + 1);
    }
    if (auto record = split_time(line)) records.push_back(std::move(*record));
  }
  return records;
}

std::optional<Record> split_kmsg(std::string_view line) {
  Scan scan(line);
  if (!scan.number() || !scan.skip(",") || !scan.number() || !scan.skip(",")) return std::nullopt;
  uint64_t microseconds = 0;
  const std::string_view digits = scan.until(",;");
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), microseconds);
  if (error != std::errc() || end != digits.data() + digits.size() || microseconds > (1ull << 52)) return std::nullopt;
  if (!scan.past(";")) return std::nullopt;
  return Record{std::chrono::microseconds(microseconds), std::string(scan.rest())};
}

std::unique_ptr<Source> syslog_source() {
  auto bell = Bell::hang({});
  return std::make_unique<SyslogSource>(bell ? *std::move(bell) : nullptr);
}

std::unique_ptr<Source> descriptor_source(int descriptor) { return std::make_unique<DescriptorSource>(descriptor); }

}  // namespace pitcrew::agent::kernel_log
