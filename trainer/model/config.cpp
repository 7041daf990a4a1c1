#include "trainer/model/config.hpp"

#include "lib/base/json.hpp"

namespace pitcrew::trainer {

namespace {

const std::vector<std::pair<std::string_view, ModelKind>> kKinds = {{"gpt2", ModelKind::kGpt2},
                                                                    {"llama", ModelKind::kLlama}};

void find_problems(const ModelConfig& config, const std::string& path, Problems& problems) {
  const auto problem = [&](const std::string& field, const std::string& message) {
    problems.push_back({path + "." + field, message});
  };
  const auto positive = [&](const std::string& field, uint32_t value, uint32_t limit) {
    if (value == 0) problem(field, "is missing or 0; give a positive number");
    if (value > limit) problem(field, "is " + std::to_string(value) + ", above the limit of " + std::to_string(limit));
  };
  positive("layers", config.layers, 1024);
  positive("width", config.width, 1 << 16);
  positive("heads", config.heads, 1024);
  positive("kvHeads", config.kv_heads, 1024);
  positive("mlp", config.mlp, 1 << 18);
  positive("vocab", config.vocab, 1 << 24);
  positive("context", config.context, 1 << 20);
  if (!problems.empty()) return;
  if (config.own_head_width > 1024) problem("headWidth", "is above the limit of 1024");
  if (config.own_head_width == 0 && config.width % config.heads != 0) {
    problem("heads", "width " + std::to_string(config.width) + " isn't divisible by " + std::to_string(config.heads) +
                         " heads; choose a divisor, or give headWidth");
  } else if (config.kind == ModelKind::kLlama && config.head_width() % 2 != 0) {
    problem("heads", "a head is " + std::to_string(config.head_width()) +
                         " wide, but rotary positions need an even width; choose another number of heads");
  }
  if (config.heads % config.kv_heads != 0) {
    problem("kvHeads", std::to_string(config.heads) + " heads can't be dealt evenly to " +
                           std::to_string(config.kv_heads) + " key heads; choose a divisor of heads");
  }
  if (config.kind == ModelKind::kGpt2 && config.kv_heads != config.heads) {
    problem("kvHeads", "gpt2 has as many key heads as heads; leave it out");
  }
  if (config.kind == ModelKind::kGpt2) {
    if (config.own_head_width != 0 || config.qkv_bias || config.qk_norm || config.rope_scaling.factor != 1) {
      problem("kind", "gpt2 has no headWidth, qkvBias, qkNorm or ropeScaling; leave them out");
    }
  }
  if (config.vocab_used > config.vocab) {
    problem("vocabUsed", std::to_string(config.vocab_used) + " is more than vocab " + std::to_string(config.vocab));
  }
  const RopeScaling& scaling = config.rope_scaling;
  if (!(scaling.factor >= 1)) problem("ropeScaling.factor", "must be at least 1; Llama 3.1 has 8");
  if (!(scaling.low_factor > 0 && scaling.high_factor > scaling.low_factor)) {
    problem("ropeScaling", "highFactor must be above lowFactor, and both above 0; Llama 3.1 has 4 and 1");
  }
  if (!(config.rope_theta > 1)) problem("ropeTheta", "must be above 1; usual are 10000 and 500000");
  if (!(config.norm_eps > 0 && config.norm_eps < 1)) problem("normEps", "must be between 0 and 1; usual is 1e-5");
}

}  // namespace

uint64_t ModelConfig::parameters() const {
  const uint64_t d = width, q = qkv_width(), gates = kind == ModelKind::kLlama ? 2 : 1;
  const bool gpt2 = kind == ModelKind::kGpt2;
  const uint64_t norms = gpt2 ? 2 * d : d;
  uint64_t layer = q * d + attention_width() * d + gates * mlp * d + d * mlp + 2 * norms;
  if (gpt2) layer += q + d + mlp + d;
  if (qkv_bias) layer += q;
  if (qk_norm) layer += 2 * uint64_t{head_width()};
  return uint64_t{vocab} * d * (tie_embeddings ? 1 : 2) + (gpt2 ? uint64_t{context} * d : 0) + layers * layer + norms;
}

double ModelConfig::flops_per_token(uint32_t tokens) const {
  const double d = width, gates = kind == ModelKind::kLlama ? 2 : 1;
  const double layer = qkv_width() * d + attention_width() * d + (gates + 1) * mlp * d;
  return 6 * (layers * layer + double{d} * vocab) + 6.0 * layers * attention_width() * tokens;
}

Status ModelConfig::validate() const {
  Problems problems;
  find_problems(*this, "model", problems);
  if (!problems.empty()) return Error(Code::kInvalidArgument, join(problems));
  return {};
}

Result<ModelConfig> model_config_from_json(const nlohmann::json& json, const std::string& path) {
  Problems problems;
  ModelConfig config;
  ObjectReader reader(json, path, problems);
  if (!reader.has("kind")) reader.problem("kind", "is missing; gpt2 or llama");
  reader.read_enum("kind", config.kind, kKinds);
  reader.read("layers", config.layers);
  reader.read("width", config.width);
  reader.read("heads", config.heads);
  reader.read("vocab", config.vocab);
  reader.read("context", config.context);
  if (!reader.read("kvHeads", config.kv_heads)) config.kv_heads = config.heads;
  if (!reader.read("mlp", config.mlp)) {
    config.mlp = config.kind == ModelKind::kGpt2 ? 4 * config.width : (config.width * 8 / 3 + 31) / 32 * 32;
  }
  reader.read("ropeTheta", config.rope_theta);
  if (!reader.read("tieEmbeddings", config.tie_embeddings)) config.tie_embeddings = config.kind == ModelKind::kGpt2;
  reader.read("normEps", config.norm_eps);
  reader.read("headWidth", config.own_head_width);
  if (config.heads != 0 && uint64_t{config.own_head_width} * config.heads == config.width) config.own_head_width = 0;
  reader.read("vocabUsed", config.vocab_used);
  if (config.vocab_used == config.vocab) config.vocab_used = 0;
  reader.read("qkvBias", config.qkv_bias);
  reader.read("qkNorm", config.qk_norm);
  if (auto scaling = reader.object("ropeScaling")) {
    scaling->read("factor", config.rope_scaling.factor);
    scaling->read("lowFactor", config.rope_scaling.low_factor);
    scaling->read("highFactor", config.rope_scaling.high_factor);
    scaling->read("originalContext", config.rope_scaling.original_context);
    scaling->finish();
  }
  reader.finish();
  if (problems.empty()) find_problems(config, path, problems);
  if (!problems.empty()) return Error(Code::kInvalidArgument, join(problems));
  return config;
}

nlohmann::json to_json(const ModelConfig& config) {
  nlohmann::json json = {{"kind", config.kind == ModelKind::kGpt2 ? "gpt2" : "llama"},
                         {"layers", config.layers},
                         {"width", config.width},
                         {"heads", config.heads},
                         {"kvHeads", config.kv_heads},
                         {"mlp", config.mlp},
                         {"vocab", config.vocab},
                         {"context", config.context},
                         {"ropeTheta", config.rope_theta},
                         {"tieEmbeddings", config.tie_embeddings},
                         {"normEps", config.norm_eps}};
  // What came later is written only where it says something, so that the hashes of older runs stay what they were.
  if (config.own_head_width != 0) json["headWidth"] = config.own_head_width;
  if (config.vocab_used != 0) json["vocabUsed"] = config.vocab_used;
  if (config.qkv_bias) json["qkvBias"] = true;
  if (config.qk_norm) json["qkNorm"] = true;
  if (const RopeScaling& scaling = config.rope_scaling; scaling.factor != 1) {
    json["ropeScaling"] = {{"factor", scaling.factor},
                           {"lowFactor", scaling.low_factor},
                           {"highFactor", scaling.high_factor},
                           {"originalContext", scaling.original_context}};
  }
  return json;
}

}  // namespace pitcrew::trainer
