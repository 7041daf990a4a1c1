#include "launcher/supervise/torch_environment.hpp"

namespace pitcrew::launcher {

std::map<std::string, std::string> torch_variables(const RankPlace& place) {
  const auto text = [](uint64_t number) { return std::to_string(number); };
  return {
      {"RANK", text(place.rank.value)},
      {"LOCAL_RANK", text(place.local_rank)},
      {"WORLD_SIZE", text(place.world_size)},
      {"LOCAL_WORLD_SIZE", text(place.local_world_size)},
      {"GROUP_RANK", text(place.group_rank)},
      {"GROUP_WORLD_SIZE", text(place.group_world_size)},
      {"ROLE_NAME", "default"},
      {"ROLE_RANK", text(place.rank.value)},
      {"ROLE_WORLD_SIZE", text(place.world_size)},
      {"MASTER_ADDR", place.master_address},
      {"MASTER_PORT", text(place.master_port)},
      {"TORCHELASTIC_RUN_ID", place.run_id},
      {"TORCHELASTIC_RESTART_COUNT", text(place.epoch > 0 ? place.epoch - 1 : 0)},
      // The operator limits restarts, not the program: a number that no count reaches.
      {"TORCHELASTIC_MAX_RESTARTS", "2147483647"},
      {"TORCHELASTIC_USE_AGENT_STORE", "False"},
  };
}

std::map<std::string, std::string> torch_defaults(const RankPlace& place) {
  std::map<std::string, std::string> defaults{{"TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"}};
  if (place.local_world_size > 1) defaults["OMP_NUM_THREADS"] = "1";
  return defaults;
}

std::vector<std::string> merge_environment(const std::vector<std::string>& inherited,
                                           const std::map<std::string, std::string>& variables,
                                           const std::map<std::string, std::string>& defaults) {
  std::vector<std::string> merged;
  std::map<std::string, std::string> missing = defaults;
  for (const std::string& entry : inherited) {
    const std::string name = entry.substr(0, entry.find('='));
    missing.erase(name);
    if (!variables.contains(name)) merged.push_back(entry);
  }
  for (const auto& [name, value] : missing) {
    if (!variables.contains(name)) merged.push_back(name + "=" + value);
  }
  for (const auto& [name, value] : variables) merged.push_back(name + "=" + value);
  return merged;
}

}  // namespace pitcrew::launcher
