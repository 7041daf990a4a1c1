#include "trainer/comm/flight_recorder.hpp"

#include <algorithm>
#include <cstring>

#include <time.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000ull + static_cast<uint64_t>(now.tv_nsec);
}

// A line of text without memory or locks.
class Line {
 public:
  void add(const char* text) {
    for (; *text != '\0' && size_ + 1 < sizeof text_; ++text) text_[size_++] = *text;
  }
  void add(uint64_t number, int digits = 1) {
    char reversed[24];
    int count = 0;
    for (; number > 0 || count < digits; number /= 10) reversed[count++] = static_cast<char>('0' + number % 10);
    while (count > 0 && size_ + 1 < sizeof text_) text_[size_++] = reversed[--count];
  }
  void end() { text_[size_++] = '\n'; }
  const char* data() const { return text_; }
  size_t size() const { return size_; }

 private:
  char text_[160];
  size_t size_ = 0;
};

}  // namespace

void FlightRecorder::begin(uint64_t sequence, const char* kind, uint64_t bytes) {
  const uint64_t number = count_.load(std::memory_order_relaxed);
  entries_[number % kEntries] = {sequence, kind, bytes, monotonic_ns(), 0, kRunning};
  count_.store(number + 1, std::memory_order_release);
}

void FlightRecorder::end(bool done) {
  const uint64_t number = count_.load(std::memory_order_relaxed);
  if (number == 0) return;
  Entry& entry = entries_[(number - 1) % kEntries];
  entry.ended_ns = monotonic_ns();
  entry.state = done ? kDone : kFailed;
}

template <typename Put>
void FlightRecorder::each_line(Put&& put) const {
  const uint64_t count = count_.load(std::memory_order_acquire);
  for (uint64_t number = count - std::min<uint64_t>(count, kEntries); number < count; ++number) {
    const Entry entry = entries_[number % kEntries];
    const uint64_t until = entry.state == kRunning ? monotonic_ns() : entry.ended_ns;
    const uint64_t microseconds = (until - entry.began_ns) / 1000;
    Line line;
    line.add("collective ");
    line.add(entry.sequence);
    line.add(" ");
    line.add(entry.kind != nullptr ? entry.kind : "?");
    line.add(" ");
    line.add(entry.bytes);
    line.add(entry.state == kRunning  ? " bytes waiting for "
             : entry.state == kFailed ? " bytes failed after "
                                      : " bytes ");
    line.add(microseconds / 1000);
    line.add(".");
    line.add(microseconds % 1000, 3);
    line.add(" ms");
    line.end();
    put(line.data(), line.size());
  }
}

std::string FlightRecorder::text() const {
  std::string all;
  each_line([&](const char* data, size_t size) { all.append(data, size); });
  return all;
}

void FlightRecorder::write_to(int fd) const {
  each_line([&](const char* data, size_t size) { [[maybe_unused]] const ssize_t ignored = ::write(fd, data, size); });
}

}  // namespace pitcrew::trainer
