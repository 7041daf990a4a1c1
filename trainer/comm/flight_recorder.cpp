#include "trainer/comm/flight_recorder.hpp"

#include <algorithm>
#include <cstring>

#include <time.h>
#include <unistd.h>

#include "lib/base/result.hpp"

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

void FlightRecorder::Track::begin(uint64_t sequence, const char* kind, uint64_t bytes) {
  const uint64_t number = count_.load(std::memory_order_relaxed);
  Entry& entry = entries_[number % kEntries];
  entry.sequence = sequence;
  entry.kind = kind;
  entry.bytes = bytes;
  entry.began_ns = monotonic_ns();
  entry.ended_ns = 0;
  entry.state = kRunning;
  count_.store(number + 1, std::memory_order_release);
}

void FlightRecorder::Track::end(bool done) {
  const uint64_t number = count_.load(std::memory_order_relaxed);
  if (number == 0) return;
  Entry& entry = entries_[(number - 1) % kEntries];
  entry.ended_ns = monotonic_ns();
  entry.state = done ? kDone : kFailed;
}

FlightRecorder::Track& FlightRecorder::track(const char* name) {
  for (Track& track : tracks_) {
    const char* const taken = track.name_.load();
    if (taken != nullptr && std::strcmp(taken, name) != 0) continue;
    track.name_ = name;
    return track;
  }
  PITCREW_INVARIANT(false, "a track for every communicator");
  return tracks_.back();
}

template <typename Put>
void FlightRecorder::each_line(Put&& put) const {
  // What comes next of each track, and where it ends.
  uint64_t next[kTracks], end[kTracks];
  for (size_t i = 0; i < kTracks; ++i) {
    end[i] = tracks_[i].count_.load(std::memory_order_acquire);
    next[i] = end[i] - std::min<uint64_t>(end[i], kEntries);
  }
  const auto began = [&](size_t i) { return tracks_[i].entries_[next[i] % kEntries].began_ns.load(); };
  for (;;) {
    size_t first = kTracks;
    for (size_t i = 0; i < kTracks; ++i) {
      if (next[i] < end[i] && (first == kTracks || began(i) < began(first))) first = i;
    }
    if (first == kTracks) return;
    const Track& track = tracks_[first];
    const Track::Entry& entry = track.entries_[next[first]++ % kEntries];
    const Track::State state = entry.state;
    const uint64_t until = state == Track::kRunning ? monotonic_ns() : entry.ended_ns.load();
    const uint64_t microseconds = (until - entry.began_ns) / 1000;
    const char *const name = track.name_, *const kind = entry.kind;
    Line line;
    line.add("collective ");
    line.add(entry.sequence);
    line.add(" ");
    if (name != nullptr && *name != '\0') {
      line.add(name);
      line.add(" ");
    }
    line.add(kind != nullptr ? kind : "?");
    line.add(" ");
    line.add(entry.bytes);
    line.add(state == Track::kRunning  ? " bytes waiting for "
             : state == Track::kFailed ? " bytes failed after "
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
