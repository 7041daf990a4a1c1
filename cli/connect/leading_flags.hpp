#pragma once

#include <string>
#include <vector>

#include "cli/connect/cluster.hpp"

namespace pitcrew::cli {

// `pitcrew -n team-a status llama`, as kubectl takes it: the flags of a cluster that stand before the command, put
// behind everything else, where the command reads them. Other words stay as they are.
std::vector<std::string> with_flags_behind(std::vector<std::string> words);

// The flags among words that are still being typed: names are completed from the cluster and namespace that they mean.
ClusterFlags cluster_flags_in(const std::vector<std::string>& words);

}  // namespace pitcrew::cli
