#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// The checkpoint that the next epoch proposes to start from, by the new status's table-to-be: the newest counted memory
// checkpoint of which enough holders are connected, else the newest durable one, else none. With c copies on peers any
// c replicas may be missing, so R - c of R holders are enough. Newest by (claim, step), since a higher step of an older
// claim isn't on the surviving history; claims that nobody told compare by step alone.
std::optional<ResumePoint> propose_resume(const Situation& situation);

}  // namespace pitcrew::control
