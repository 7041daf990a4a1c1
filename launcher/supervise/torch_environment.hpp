#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/base/strong.hpp"

namespace pitcrew::launcher {

// Where one rank stands in its epoch: what torchrun's variables say.
struct RankPlace {
  Rank rank;
  uint32_t local_rank = 0;
  uint32_t local_world_size = 1;
  uint32_t world_size = 1;
  uint32_t group_rank = 0;        // the replica's slot
  uint32_t group_world_size = 1;  // replicas
  std::string master_address;
  uint32_t master_port = 0;
  std::string run_id;  // the job's UID
  uint64_t epoch = 1;  // restarts are counted from it
};

// The variables that torchrun sets for a worker (torch/distributed/elastic/agent/server/local_elastic_agent.py), with
// the same names and meanings; the two that it sets only where nobody else did (OMP_NUM_THREADS=1 for several ranks in
// a pod, TORCH_NCCL_ASYNC_ERROR_HANDLING=1) are in torch_defaults(). There is no agent store: rank 0 of the program
// listens at MASTER_PORT itself.
std::map<std::string, std::string> torch_variables(const RankPlace& place);
std::map<std::string, std::string> torch_defaults(const RankPlace& place);

// `inherited` ("NAME=value") with `variables` in place of those of the same name, and those of `defaults` that it
// lacks.
std::vector<std::string> merge_environment(const std::vector<std::string>& inherited,
                                           const std::map<std::string, std::string>& variables,
                                           const std::map<std::string, std::string>& defaults = {});

}  // namespace pitcrew::launcher
