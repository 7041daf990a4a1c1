#pragma once

#include <optional>

#include "operator/decide/evidence.hpp"

namespace pitcrew::control {

// What a node's agent says of a node that it has quarantined: our taint is on it. A verdict without the taint (the
// CordonBudget had no token, shadow mode) moves no job. A node that HyperPod takes away isn't faulty: it is leaving().
struct NodeFault {
  api::Cause cause = api::Cause::kGpuFault;  // or kEfaFault
  std::string evidence;                      // "unhealthy: xid-79 on GPU-1: the GPU has fallen off the bus"
  bool certain = false;
  std::optional<Instant> since;
};
std::optional<NodeFault> node_fault(const NodeView& view);

// The slots on nodes with such a fault.
std::vector<Slot> faulty_slots(const Situation& situation);

// Of a failure that came while a node of the gang is quarantined, that node is the cause: the slot moves, whichever
// rank was seen to fail, and every other slot on such a node with it. A hang without a culprit is the fault of the node
// that EFA's counters point at, where they do. What a program says of itself (exit codes 64 and 65) stays its own.
void blame_nodes(const Situation& situation, Judgement& judgement);

// A verdict whose action is Restart (a contained memory error): the job is restarted where it is, once for each time
// that it came, where no restart has come of it already. The mark of what was followed is set.
std::optional<Verdict> restart_wanted(Situation& situation);

}  // namespace pitcrew::control
