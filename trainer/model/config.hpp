#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "lib/base/result.hpp"
#include "trainer/kernels/rope.hpp"

namespace pitcrew::trainer {

enum class ModelKind { kGpt2, kLlama };

// The shape of a decoder. In JSON and YAML:
//   {kind: llama, layers: 6, width: 256, heads: 8, kvHeads: 8, mlp: 704, vocab: 256, context: 256,
//    ropeTheta: 10000, tieEmbeddings: false, normEps: 1e-5}
// kvHeads, mlp, ropeTheta, tieEmbeddings and normEps may be left out: heads; 4 × width (gpt2) or 8/3 × width rounded up
// to 32 (llama); 10000; true for gpt2; 1e-5. Llama's relatives differ by: headWidth (width / heads), qkvBias
// (Qwen 2.5), qkNorm (Qwen 3), ropeScaling: {factor: 8, lowFactor: 1, highFactor: 4, originalContext: 8192} (Llama 3.1
// and later). vocabUsed: how many of `vocab` rows are tokens; the rest pads the matrix.
struct ModelConfig {
  ModelKind kind = ModelKind::kLlama;
  uint32_t layers = 0;
  uint32_t width = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t mlp = 0;
  uint32_t vocab = 0;
  uint32_t context = 0;  // the longest sequence
  double rope_theta = 10000;
  bool tie_embeddings = false;
  double norm_eps = 1e-5;
  uint32_t own_head_width = 0;  // 0: width / heads
  uint32_t vocab_used = 0;      // 0: vocab
  bool qkv_bias = false;        // llama; gpt2 has biases everywhere
  bool qk_norm = false;         // llama
  RopeScaling rope_scaling;

  uint32_t head_width() const { return own_head_width != 0 ? own_head_width : width / heads; }
  uint32_t attention_width() const { return heads * head_width(); }
  uint32_t qkv_width() const { return (heads + 2 * kv_heads) * head_width(); }
  uint32_t tokens() const { return vocab_used != 0 ? vocab_used : vocab; }
  uint64_t parameters() const;
  // Multiply-adds of matrix products count 2: 6 × matmul parameters + 6 × layers × heads' width × tokens (causal
  // attention).
  double flops_per_token(uint32_t tokens) const;
  // Every problem at once, with the remedy; kInvalidArgument.
  Status validate() const;
  bool operator==(const ModelConfig&) const = default;
};

// Fills in defaults and validates; unknown fields are errors. `path` stands in front of every message ("model.heads:
// …").
Result<ModelConfig> model_config_from_json(const nlohmann::json& json, const std::string& path = "model");
// All fields, so that its text can be hashed.
nlohmann::json to_json(const ModelConfig& config);

}  // namespace pitcrew::trainer
