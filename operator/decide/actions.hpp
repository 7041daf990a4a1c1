#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// What follows from the stored status: reserved serials without a pod are created, pods without a reserved serial
// deleted, launchers told what they don't know yet.
void act_on_stored(Situation& situation, Plan& plan);

}  // namespace pitcrew::control
