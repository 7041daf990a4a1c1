#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpointer.hpp"
#include "trainer/checkpoint/group.hpp"
#include "trainer/checkpoint/memory_folder.hpp"
#include "trainer/checkpoint/name.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

// What restoring stands on; each rank has its own.
struct RestoreInput {
  Group group;
  Slot slot;
  uint32_t local_rank = 0;
  Storage* storage = nullptr;            // null: nothing durable
  const MemoryFolder* memory = nullptr;  // null: no memory
  LauncherClient* launcher = nullptr;    // null: none
  Copier* copier = nullptr;
  const std::vector<StateTensor>* tensors = nullptr;
  const RunDescription* run = nullptr;
  Logger log;
};

struct RestoreOutput {
  std::optional<Restored> restored;
  std::optional<CheckpointName>
      in_memory;  // the newest checkpoint that is complete in memory: it stays until a newer one counts
  std::vector<std::string> others_in_memory;  // what else somebody holds: complete, damaged or neither
  uint64_t bytes_read = 0;                    // by this rank
};

// The vote: all ranks put together what they hold, try the checkpoints from the newest on, each place after the other,
// and take the first of which every byte is right. A collective.
Result<RestoreOutput> restore_newest(RestoreInput& input, const std::optional<ResumePoint>& proposal);

}  // namespace pitcrew::trainer
