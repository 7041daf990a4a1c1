#pragma once

#include <string>
#include <vector>

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Nodes for pods of one job: which node each would be pinned to, or why there aren't enough.
struct Fit {
  std::vector<std::string> nodes;  // one a pod, in the order asked for; empty where they don't all fit
  // "needs room for 3 pods, there is room for 1; 2 nodes not ready; 4 nodes with too little free cpu"
  std::string reason;
};

// Places `count` pods, all or none. A node takes a pod where it is Ready, not cordoned, has no taint that the pod
// doesn't tolerate (NoSchedule, NoExecute), matches the node selector and the required node affinity, isn't avoided by
// the job, isn't in `except`, and has the pod's requests free, less what this job has reserved there for pods that
// don't exist yet. Nodes without a pod of this job come first; of those, nodes that passed their newest deep check, and
// last nodes that had a fault and no passed check since; then by name.
Fit fit(const Situation& situation, uint32_t count, const std::vector<std::string>& except = {});

// Whether one node could take a pod of this job, free resources apart; the empty string, or why not.
std::string refusal(const Situation& situation, const kube::Node& node);

}  // namespace pitcrew::control
