#pragma once

#include <string>
#include <vector>

#include "trainer/train/config.hpp"

namespace pitcrew::trainer {

// Reads a YAML configuration, puts `sets` ("batch.micro=2"; values are YAML) over it, and validates. Every problem has
// a line of its own: "quickstart.yaml:12: batch.micro: …"; kInvalidArgument.
Result<TrainConfig> load_config(const std::string& path, const std::vector<std::string>& sets);

}  // namespace pitcrew::trainer
