#pragma once

#include <functional>
#include <optional>
#include <string>

#include "lib/base/environment.hpp"

namespace pitcrew::trainer {

// Who this process is: torchrun's variables and the launcher's. Without any it is the only rank of a run of its own.
struct RankEnvironment {
  uint32_t rank = 0;
  uint32_t size = 1;
  uint32_t local_rank = 0;
  uint32_t local_size = 1;
  Slot slot;  // of the replica: GROUP_RANK, or RANK / LOCAL_WORLD_SIZE
  std::string master_address = "127.0.0.1";
  uint16_t master_port = 0;

  bool managed = false;  // by a launcher: PITCREW_JOB is set
  JobIdentity job;
  EpochNumber epoch;
  std::optional<CheckpointSettings> checkpoint;
  std::optional<ResumePoint> resume;
  std::optional<ReplayPoint> replay;
  std::string memory;
  std::string progress;
  std::string launcher;
};

// `get` returns null for what isn't set (getenv). Every problem at once, naming the variable; kInvalidArgument.
Result<RankEnvironment> read_rank_environment(const std::function<const char*(const char*)>& get);

}  // namespace pitcrew::trainer
