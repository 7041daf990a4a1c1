#pragma once

#include "trainer/comm/flight_recorder.hpp"

namespace pitcrew::trainer {

// SIGTERM and SIGINT ask for an end: save, then exit 0. Process-wide; to be called once, before threads are made.
void install_stop_signals();
bool stop_signalled();

// SIGUSR2: every thread writes its backtrace to standard error, one after another, between the lines
// "=== backtraces of rank N ===" and "=== end of backtraces ===". Safe at any time, also while the program hangs.
// Process-wide; to be called once, before threads are made.
void install_backtrace_signal(unsigned rank);
// Behind the backtraces the signal then prints these; they live until the process ends.
void show_collectives(const FlightRecorder* collectives);

}  // namespace pitcrew::trainer
