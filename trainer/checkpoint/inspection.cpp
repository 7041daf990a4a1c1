#include "trainer/checkpoint/inspection.hpp"

#include "trainer/checkpoint/checkpointer.hpp"

namespace pitcrew::trainer {

Result<Inspection> inspect_checkpoints(FileSystem& files, const std::string& path, const std::string& name,
                                       bool verify) {
  std::vector<CheckpointSummary> found;
  if (verify) {
    PITCREW_ASSIGN(auto one, verify_checkpoint(files, name.empty() ? path : join_path(path, name)));
    found.push_back(std::move(one));
  } else {
    PITCREW_ASSIGN(found, list_checkpoints(files, path));
    if (!name.empty()) std::erase_if(found, [&](const CheckpointSummary& one) { return one.name != name; });
  }
  Inspection inspection{{{"path", path}, {"verified", verify}, {"checkpoints", Json::array()}}, true};
  for (const CheckpointSummary& one : found) {
    inspection.intact = inspection.intact && one.intact;
    inspection.document["checkpoints"].push_back({{"name", one.name},
                                                  {"step", one.step.value},
                                                  {"claim", one.claim},
                                                  {"bytes", one.bytes},
                                                  {"intact", one.intact},
                                                  {"problem", one.problem}});
  }
  return inspection;
}

}  // namespace pitcrew::trainer
