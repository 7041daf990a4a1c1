#pragma once

#include <map>
#include <vector>

#include "lib/base/strong.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::launcher {

// Judges from the answers to pings which neighbours can't be reached. Pure: times are passed in.
class Silence {
 public:
  struct Report {
    Slot slot;
    Duration silent{0};  // zero: reachable again
    bool operator==(const Report&) const = default;
  };

  Silence(const std::vector<Slot>& slots, Instant now);

  void answered(Slot slot, Instant now);
  // To be called at least every second. A silence is reported when it has lasted 4 s, again every 5 s while it lasts,
  // and once when it is over. Time in which this process did not run is nobody's silence.
  std::vector<Report> look(Instant now);

  static constexpr Duration kLimit = seconds(4);
  static constexpr Duration kAgain = seconds(5);

 private:
  struct Neighbour {
    Instant heard;
    bool reported = false;
    bool back = false;
    Instant reported_at;
  };
  std::map<Slot, Neighbour> neighbours_;
  Instant last_look_;
};

}  // namespace pitcrew::launcher
