#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// What people ask for by annotations `pitcrew.dev/request-<verb>: <id>`: `save` (a durable checkpoint now) and
// `stacks`. Each is taken into status.requests once, by its id, told to the launchers from there, and answered there.
void answer_requests(Situation& situation);
void tell_requests(const Situation& situation, Plan& plan);

}  // namespace pitcrew::control
