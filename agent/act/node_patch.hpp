#pragma once

#include "agent/act/plan.hpp"

namespace pitcrew::agent {

// Whether managedFields name us, and nobody else, as who made the node unschedulable.
bool cordon_is_ours(const Json& node);

// The merge patch that makes the change to the node as it was just read: lists are whole in it, with what others have
// put there untouched, and it takes effect on that very version alone. `kept`: an uncordon was wanted and the cordon is
// not ours any more, so it stays.
struct NodePatch {
  Json body;
  bool kept = false;
};
NodePatch node_patch(const NodeChange& change, const Json& node, Instant now);

// The patch of a NodeHealth's status that makes `wanted` of `old`, the operator's part apart.
Json health_patch(const api::NodeHealth& wanted, const api::NodeHealth& old);

}  // namespace pitcrew::agent
