#pragma once

#include <span>
#include <string>

#include "lib/base/file.hpp"
#include "lib/base/json.hpp"
#include "trainer/model/parameters.hpp"

namespace pitcrew::trainer::hugging_face {

// Folders as `transformers` writes them: config.json and model.safetensors, or shards with
// model.safetensors.index.json. Known are gpt2, llama (Llama 3's rope scaling included), qwen2 (Qwen 2.5) and qwen3.

// The model that a folder's config.json describes. kUnsupported names what this trainer has not (another activation,
// sliding windows, another scaling of rope).
Result<ModelConfig> read_config(FileSystem& files, const std::string& folder);
// config.json of a model. kUnsupported for one that `transformers` has no name for (biases and head norms at once).
Result<Json> config_of(const ModelConfig& model);

// Fills `params` (the layout's flat elements, in host memory) from a folder's weights: F32, BF16 or F16. Where
// model.vocab is larger than the folder's, the rows between stay zero: set model.vocabUsed to the folder's. Errors name
// file and tensor: kDataLoss (missing, of another shape, damaged), kInvalidArgument (of another model).
Status read_weights(FileSystem& files, const std::string& folder, const ModelConfig& model,
                    const ParameterLayout& layout, std::span<float> params);
// Writes config.json and model.safetensors, weights as F32 or rounded to BF16; padding of the vocabulary is left out.
Status write_model(FileSystem& files, const std::string& folder, const ModelConfig& model,
                   const ParameterLayout& layout, std::span<const float> params, DType dtype);

}  // namespace pitcrew::trainer::hugging_face
