#pragma once

#include <string>
#include <vector>

#include "launcher/app/contract.hpp"
#include "lib/api/channel.hpp"

namespace pitcrew::launcher {

struct RankPaths {
  std::string progress;
  std::string socket;
};

// The environment of one local rank in an epoch: what the container has, torchrun's variables, and ours. Pure.
std::vector<std::string> rank_environment(const Contract& contract, const api::channel::Epoch& epoch,
                                          const RankPaths& paths, uint32_t local_rank);

// The receiver's row of the table, if the table makes sense for a pod of so many ranks.
Result<api::channel::TableEntry> own_entry(const api::channel::Epoch& epoch, uint32_t processes);

}  // namespace pitcrew::launcher
