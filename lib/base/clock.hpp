#pragma once

#include <mutex>

#include "lib/base/time.hpp"

namespace pitcrew {

// Where time comes from. Passed in through constructors; only `main` and the I/O adapters make a RealClock.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
};

// The wall clock's time when it was made, counted on by the steady clock. Thread-safe.
class RealClock final : public Clock {
 public:
  RealClock();
  Instant now() const override;

 private:
  Instant wall_at_start_;
  std::chrono::steady_clock::time_point steady_at_start_;
};

// Stands still until a test moves it. Thread-safe.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(Instant start = Instant(seconds(1'700'000'000))) : now_(start) {}
  Instant now() const override;
  void advance(Duration by);

 private:
  mutable std::mutex mutex_;
  Instant now_;
};

}  // namespace pitcrew
