#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// The connected spare to take a slot with: on a healthy node that isn't avoided and isn't `except`, the lowest serial
// first.
std::optional<Serial> ready_spare(const Situation& situation, const std::string& except = "");

// The spare's record now holds the slot; it joins by appearing in the next table.
void promote(Situation& situation, Serial spare, Slot slot);

// Forgets spares whose pods or nodes are lost, and reserves new ones where a node fits, without disturbing the gang. At
// most one round a minute.
void keep_spares(Situation& situation);

// Reserves a serial in the new status: the pod is created once that is stored.
void reserve(Situation& situation, std::optional<Slot> slot, std::string node);

}  // namespace pitcrew::control
