#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/train/lane_engine.hpp"

namespace pitcrew::trainer {

// Replicas that have gone apart: their parameters or moments differ, though all applied the same gradients.
struct ReplicaDifference {
  std::vector<uint32_t> odd;  // ranks; empty: which are right can't be told
  std::string message;        // for people: the tensors, and who differs
};

// Who differs from the majority. `digests`: by rank, then by tensor. Of two, or of halves, none is a majority: then
// `weight` (the first differing tensor's square sum, by rank) tells, if one is not finite or more than half as large
// again as the others. `ranks` are the world's, where they are not 0, 1, … Pure.
std::optional<ReplicaDifference> find_difference(const std::vector<std::vector<uint64_t>>& digests,
                                                 const std::vector<double>& weights,
                                                 const std::vector<std::string>& names,
                                                 const std::vector<uint32_t>& ranks = {});

// Compares the training state of all replicas (of a shard, the ranks that hold the same part), 8 bytes for each tensor
// and replica on the wire. `comm` is theirs, `ranks` their ranks in the world. Collective; all of them get the same
// answer. Errors as Comm's.
Result<std::optional<ReplicaDifference>> compare_replicas(Comm& comm, LaneEngine& engine,
                                                          const std::vector<uint32_t>& ranks);

}  // namespace pitcrew::trainer
