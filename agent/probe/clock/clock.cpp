#include "agent/probe/clock/clock.hpp"

#include <cerrno>
#include <cmath>
#include <cstring>

#include <sys/timex.h>
#include <time.h>

#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::clock {
namespace {

Duration read_clock(clockid_t id) {
  timespec time{};
  ::clock_gettime(id, &time);
  return seconds(time.tv_sec) + Duration(time.tv_nsec);
}

}  // namespace

Result<Sample> kernel_clock() {
  Sample sample;
  // Read around the wall clock and taken in the middle: a pause in between is half as wrong.
  const Duration before = read_clock(CLOCK_MONOTONIC);
  sample.wall = read_clock(CLOCK_REALTIME);
  const Duration after = read_clock(CLOCK_MONOTONIC);
  sample.steady = before + (after - before) / 2;
  timex state{};
  const int answer = ::adjtimex(&state);
  if (answer >= 0) {
    const double unit = (state.status & STA_NANO) != 0 ? 1e-9 : 1e-6;
    sample.discipline =
        Discipline{(state.status & STA_UNSYNC) == 0 && answer != TIME_ERROR, static_cast<double>(state.offset) * unit,
                   static_cast<double>(state.maxerror) * 1e-6};
  } else if (errno != EPERM && errno != ENOSYS) {
    return Error(Code::kUnavailable, std::string("adjtimex: ") + std::strerror(errno));
  }
  return sample;
}

Result<std::vector<Observation>> ClockProbe::look(Instant now) {
  PITCREW_ASSIGN(const Sample sample, source_());
  Observation reading = make_reading("clock", "", now);
  if (sample.discipline) {
    reading.values["synchronized"] = sample.discipline->synchronized ? 1.0 : 0.0;
    reading.values["offset_seconds"] = std::fabs(sample.discipline->offset);
    reading.values["max_error_seconds"] = sample.discipline->max_error;
  }
  if (last_) {
    const Duration jump = (sample.wall - last_->wall) - (sample.steady - last_->steady);
    reading.values["step_seconds"] = std::fabs(to_seconds(jump));
    if (jump > seconds(1) || jump < seconds(-1)) {
      reading.text = "the clock was set " + std::string(jump > Duration(0) ? "forward" : "back") + " by " +
                     pitcrew::to_string(jump > Duration(0) ? jump : -jump);
    }
  }
  last_ = sample;
  return std::vector<Observation>{std::move(reading)};
}

}  // namespace pitcrew::agent::clock
