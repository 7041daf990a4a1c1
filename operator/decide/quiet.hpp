#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Whether the new status says something that can't wait: anything but progress, memory checkpoints, goodput, counts of
// connected pods, and a condition's wording.
bool worth_a_write(const Situation& situation);

// Whether what could wait has waited long enough: 30 s since the last write, and something of it changed. Asks to be
// woken where that lies ahead. A job of which nothing moves is never written.
bool quiet_write_due(Situation& situation);

}  // namespace pitcrew::control
