#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace pitcrew::trainer {

// The last collectives of a rank, for whoever asks why an epoch ended or hangs: number, kind, bytes, how long it took,
// or since when it waits. A ring of fixed size. One thread records; anybody may read at any time, from a signal handler
// too, and at worst sees an entry that is being written.
class FlightRecorder {
 public:
  static constexpr size_t kEntries = 64;

  // `kind` lives for ever. `bytes`: what this rank hands over and gets.
  void begin(uint64_t sequence, const char* kind, uint64_t bytes);
  void end(bool done);

  // A line per collective, oldest first:
  //   collective 812 all_gather 4096 bytes 1.204 ms
  //   collective 813 exchange 1048576 bytes waiting for 5012.310 ms
  std::string text() const;
  // The same to a file descriptor, with nothing but write(2).
  void write_to(int fd) const;

 private:
  enum State : uint32_t { kRunning, kDone, kFailed };
  struct Entry {
    uint64_t sequence = 0;
    const char* kind = nullptr;
    uint64_t bytes = 0;
    uint64_t began_ns = 0, ended_ns = 0;  // CLOCK_MONOTONIC
    State state = kRunning;
  };
  template <typename Put>
  void each_line(Put&& put) const;

  std::array<Entry, kEntries> entries_{};
  std::atomic<uint64_t> count_{0};  // begun in all
};

}  // namespace pitcrew::trainer
