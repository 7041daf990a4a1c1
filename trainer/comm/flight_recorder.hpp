#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace pitcrew::trainer {

// The last collectives of a rank, for whoever asks why an epoch ended or hangs: number, kind, bytes, how long it took,
// or since when it waits. A ring of fixed size for each communicator, so that one that talks all the time leaves the
// others' last words alone. One thread at a time records in a track; anybody may read at any time, from a signal
// handler too, and at worst sees an entry that is being written.
class FlightRecorder {
 public:
  static constexpr size_t kEntries = 64;  // of a track
  static constexpr size_t kTracks = 8;

  class Track {
   public:
    // `kind` lives for ever. `bytes`: what this rank hands over and gets.
    void begin(uint64_t sequence, const char* kind, uint64_t bytes);
    // What was begun last.
    void end(bool done);

   private:
    friend class FlightRecorder;
    enum State : uint32_t { kRunning, kDone, kFailed };
    struct Entry {
      std::atomic<uint64_t> sequence{0};
      std::atomic<const char*> kind{nullptr};
      std::atomic<uint64_t> bytes{0};
      std::atomic<uint64_t> began_ns{0}, ended_ns{0};  // CLOCK_MONOTONIC
      std::atomic<State> state{kRunning};
    };
    std::atomic<const char*> name_{nullptr};
    std::array<Entry, kEntries> entries_{};
    std::atomic<uint64_t> count_{0};  // begun in all
  };

  // The track of that name, made by the first call; "" is that of all ranks together. `name` lives for ever. One thread
  // makes all of them.
  Track& track(const char* name);

  // A line per collective of all tracks, in the order in which they began:
  //   collective 812 all_gather 4096 bytes 1.204 ms
  //   collective 90 tensor all_gather 4096 bytes failed after 3.017 ms
  //   collective 813 exchange 1048576 bytes waiting for 5012.310 ms
  std::string text() const;
  // The same to a file descriptor, with nothing but write(2).
  void write_to(int fd) const;

 private:
  template <typename Put>
  void each_line(Put&& put) const;

  std::array<Track, kTracks> tracks_{};
};

}  // namespace pitcrew::trainer
