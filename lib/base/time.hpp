#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.hpp"

namespace pitcrew {

using Duration = std::chrono::nanoseconds;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// A point in time: nanoseconds since the Unix epoch, counted on from the start of the process by a steady clock. It
// never jumps when the machine's clock is set, and it can be compared with the times that were written into a job's
// status.
class Instant {
 public:
  constexpr Instant() = default;
  constexpr explicit Instant(Duration since_epoch) : since_epoch_(since_epoch) {}

  constexpr Duration since_epoch() const { return since_epoch_; }
  constexpr auto operator<=>(const Instant&) const = default;

  constexpr Instant operator+(Duration d) const { return Instant(since_epoch_ + d); }
  constexpr Instant operator-(Duration d) const { return Instant(since_epoch_ - d); }
  constexpr Duration operator-(Instant other) const { return since_epoch_ - other.since_epoch_; }
  constexpr Instant& operator+=(Duration d) {
    since_epoch_ += d;
    return *this;
  }

 private:
  Duration since_epoch_{0};
};

// "2026-03-01T02:14:07Z", or with a fraction of a second where `digits` asks for one (0, 3, 6 or 9).
std::string to_rfc3339(Instant time, int digits = 0);
Result<Instant> parse_rfc3339(std::string_view text);

// Durations as Kubernetes and Go write them: "10m", "1h30m", "250ms", "1.5s".
Result<Duration> parse_duration(std::string_view text);
std::string to_string(Duration duration);

inline double to_seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline Duration from_seconds(double s) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

}  // namespace pitcrew
