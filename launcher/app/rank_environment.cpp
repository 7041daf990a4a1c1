#include "launcher/app/rank_environment.hpp"

#include "launcher/memory/placement.hpp"
#include "launcher/supervise/torch_environment.hpp"
#include "lib/base/environment.hpp"

namespace pitcrew::launcher {

std::vector<std::string> rank_environment(const Contract& contract, const api::channel::Epoch& epoch,
                                          const RankPaths& paths, uint32_t local_rank) {
  const auto* entry = epoch.slot ? find_slot(epoch.table, *epoch.slot) : nullptr;
  PITCREW_INVARIANT(entry != nullptr, "a rank is started for a pod without a slot");
  RankPlace place;
  place.rank = Rank(entry->first_rank.value + local_rank);
  place.local_rank = local_rank;
  place.local_world_size = entry->ranks;
  place.world_size = epoch.world_size;
  place.group_rank = epoch.slot->value;
  place.group_world_size = static_cast<uint32_t>(epoch.table.size());
  place.master_address = epoch.master_address;
  place.master_port = epoch.master_port;
  place.run_id = epoch.job.uid;
  place.epoch = epoch.id.number.value;

  auto variables = torch_variables(place);
  CheckpointSettings checkpoint = epoch.checkpoint;
  checkpoint.path = map_path(contract.path_map, checkpoint.path);
  variables[environment::kJob] = to_json(epoch.job).dump();
  variables[environment::kEpoch] = std::to_string(epoch.id.number.value);
  variables[environment::kCheckpoint] = to_json(checkpoint).dump();
  variables[environment::kProgress] = paths.progress;
  variables[environment::kLauncher] = paths.socket;
  if (epoch.resume) variables[environment::kResume] = to_json(*epoch.resume).dump();
  if (epoch.replay) variables[environment::kReplay] = to_json(*epoch.replay).dump();
  if (!contract.memory_folder.empty() && checkpoint.memory_steps)
    variables[environment::kMemory] = contract.memory_folder;

  // What an outer launcher may have left must not be taken for ours.
  std::vector<std::string> inherited;
  for (const std::string& variable : contract.environment) {
    const std::string name = variable.substr(0, variable.find('='));
    if (name != environment::kResume && name != environment::kMemory && name != environment::kReplay)
      inherited.push_back(variable);
  }
  return merge_environment(inherited, variables, torch_defaults(place));
}

Result<api::channel::TableEntry> own_entry(const api::channel::Epoch& epoch, uint32_t processes) {
  const auto* entry = epoch.slot ? find_slot(epoch.table, *epoch.slot) : nullptr;
  if (entry == nullptr) return Error(Code::kInvalidArgument, "the epoch's table has no row for this pod's slot");
  if (entry->ranks != processes) {
    return Error(Code::kInvalidArgument, "the table gives this pod " + std::to_string(entry->ranks) +
                                             " ranks and the pod was made for " + std::to_string(processes));
  }
  if (uint64_t{entry->first_rank.value} + entry->ranks > epoch.world_size) {
    return Error(Code::kInvalidArgument,
                 "the table's ranks reach beyond the world size of " + std::to_string(epoch.world_size));
  }
  return *entry;
}

}  // namespace pitcrew::launcher
