#include "trainer/app/trained_model.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "lib/base/file.hpp"
#include "trainer/checkpoint/checkpointer.hpp"
#include "trainer/model/parameters.hpp"

namespace pitcrew::trainer {
namespace {

Result<std::string> checkpoint_folder(const std::string& path) {
  if (std::filesystem::path(path).lexically_normal().filename().string().starts_with("step-")) return path;
  PITCREW_ASSIGN(const auto all, list_checkpoints(posix_file_system(), path));
  std::string problems;
  for (const CheckpointSummary& summary : all) {
    if (summary.intact) return join_path(path, summary.name);
    problems += "; " + summary.name + ": " + summary.problem;
  }
  return Error(Code::kNotFound, "no checkpoint that is whole in " + path + problems);
}

}  // namespace

Result<TrainedModel> load_trained_model(const std::string& path) {
  PITCREW_ASSIGN(const std::string folder, checkpoint_folder(path));
  const auto is_parameter = [](const std::string& name) { return !name.ends_with(".m") && !name.ends_with(".v"); };
  PITCREW_ASSIGN(const LoadedCheckpoint loaded, load_tensors(posix_file_system(), folder, is_parameter));
  if (!loaded.state.contains("config"))
    return Error(Code::kInvalidArgument, folder + " was not written by pitcrew-train");
  TrainedModel trained;
  trained.run = loaded.state["config"];
  PITCREW_ASSIGN(trained.config, model_config_from_json(trained.run.at("model")));
  const ParameterLayout layout = parameter_layout<float>(trained.config);
  trained.params.resize(layout.flat_elements<float>());
  for (const Slice& slice : layout.arena.slices()) {
    const auto found = std::find_if(loaded.tensors.begin(), loaded.tensors.end(),
                                    [&](const LoadedTensor& t) { return t.tensor.name == slice.name; });
    if (found == loaded.tensors.end() || found->bytes.size() != slice.bytes()) {
      return Error(Code::kDataLoss,
                   "the checkpoint has no tensor " + slice.name + " of " + std::to_string(slice.bytes()) + " bytes");
    }
    std::memcpy(trained.params.data() + layout.element<float>(slice), found->bytes.data(), slice.bytes());
  }
  return trained;
}

}  // namespace pitcrew::trainer
