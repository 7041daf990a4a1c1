#pragma once

#include <functional>
#include <optional>

#include "agent/probe/probe.hpp"

namespace pitcrew::agent::clock {

// What the kernel knows of its clock (adjtimex(2)).
struct Discipline {
  bool synchronized = false;  // something keeps it: chrony, ntpd
  double offset = 0;          // seconds, as whoever keeps it last said
  double max_error = 0;       // seconds
};

// Both clocks at one moment. `steady` runs as fast as `wall`, corrections of its pace included, and never jumps.
struct Sample {
  Duration wall{0};  // since the Unix epoch
  Duration steady{0};
  std::optional<Discipline> discipline;  // where it may be asked
};
using Source = std::function<Result<Sample>()>;
Result<Sample> kernel_clock();

// `clock` of the node: whether it is kept, how far off it is, and by how much it has jumped since the last look. A step
// breaks leases, certificates and logs; it never breaks a GPU.
class ClockProbe final : public Probe {
 public:
  explicit ClockProbe(Source source = kernel_clock) : source_(std::move(source)) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  Source source_;
  std::optional<Sample> last_;
};

}  // namespace pitcrew::agent::clock
