#pragma once

#include <string>

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Why a node is being taken away by somebody else; empty: it isn't. Cordoned, or with a taint by which its agent,
// Karpenter, the cluster autoscaler, a cloud or a termination handler says so, or HyperPod by its label.
std::string leaving(const kube::Node& node);

// Slots whose pods are on nodes that are leaving.
std::vector<Slot> leaving_slots(const Situation& situation);

// The PodDisruptionBudget holds evictions up, so an intent to take a node away must be obeyed by moving: as soon as
// spares (reserved for it, where there are none) are connected, and at the latest lifecycle.warnBefore after it was
// seen, the ranks save and stop, and the slots move. True where that decided about the job, so that nothing else has to
// be.
bool move_off_leaving_nodes(Situation& situation);

}  // namespace pitcrew::control
