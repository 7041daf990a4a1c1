#pragma once

#include <string>
#include <vector>

#include "lib/base/json.hpp"
#include "trainer/model/config.hpp"

namespace pitcrew::trainer {

// The weights of a checkpoint, in the order of parameter_layout<float>(), and the run's canonical configuration.
struct TrainedModel {
  ModelConfig config;
  Json run;
  std::vector<float> params;
};
// `path`: a checkpoint's folder, or the folder of checkpoints: then the newest that is whole.
Result<TrainedModel> load_trained_model(const std::string& path);

}  // namespace pitcrew::trainer
