#include "trainer/train/hugging_face.hpp"

#include <bit>
#include <cstring>
#include <map>
#include <set>

#include "trainer/checkpoint/safetensors.hpp"
#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer::hugging_face {
namespace {

constexpr uint64_t kConfigLimit = 1 << 20, kIndexLimit = 64 << 20;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// One of their tensors within one of ours: its rows from row `first` on. Theirs may be stored turned ([in, out]:
// GPT-2's Conv1D).
struct Piece {
  std::string theirs, ours;
  uint64_t first = 0, rows = 0, columns = 1;
  bool turned = false;
  std::vector<uint64_t> their_shape() const {
    if (columns == 1) return {rows};
    return turned ? std::vector<uint64_t>{columns, rows} : std::vector<uint64_t>{rows, columns};
  }
};

std::vector<Piece> gpt2_pieces(const ModelConfig& m) {
  const uint64_t d = m.width;
  std::vector<Piece> pieces{{"transformer.wte.weight", "embed.weight", 0, m.tokens(), d, false},
                            {"transformer.wpe.weight", "position.weight", 0, m.context, d, false}};
  const auto vectors = [&](const std::string& theirs, const std::string& ours, uint64_t rows) {
    pieces.push_back({theirs + ".bias", ours + ".bias", 0, rows});
  };
  const auto norm = [&](const std::string& theirs, const std::string& ours) {
    pieces.push_back({theirs + ".weight", ours + ".weight", 0, d});
    vectors(theirs, ours, d);
  };
  const auto linear = [&](const std::string& theirs, const std::string& ours, uint64_t out, uint64_t in) {
    pieces.push_back({theirs + ".weight", ours + ".weight", 0, out, in, true});
    vectors(theirs, ours, out);
  };
  for (uint32_t layer = 0; layer < m.layers; ++layer) {
    const std::string theirs = "transformer.h." + std::to_string(layer) + ".",
                      ours = "layers." + std::to_string(layer) + ".";
    norm(theirs + "ln_1", ours + "norm1");
    linear(theirs + "attn.c_attn", ours + "attn.qkv", 3 * d, d);
    linear(theirs + "attn.c_proj", ours + "attn.out", d, d);
    norm(theirs + "ln_2", ours + "norm2");
    linear(theirs + "mlp.c_fc", ours + "mlp.up", m.mlp, d);
    linear(theirs + "mlp.c_proj", ours + "mlp.down", d, m.mlp);
  }
  norm("transformer.ln_f", "norm");
  if (!m.tie_embeddings) pieces.push_back({"lm_head.weight", "head.weight", 0, m.tokens(), d, false});
  return pieces;
}

std::vector<Piece> llama_pieces(const ModelConfig& m) {
  const uint64_t d = m.width, q = m.attention_width(), kv = uint64_t{m.kv_heads} * m.head_width();
  std::vector<Piece> pieces{{"model.embed_tokens.weight", "embed.weight", 0, m.tokens(), d, false}};
  for (uint32_t layer = 0; layer < m.layers; ++layer) {
    const std::string theirs = "model.layers." + std::to_string(layer) + ".",
                      ours = "layers." + std::to_string(layer) + ".";
    pieces.push_back({theirs + "input_layernorm.weight", ours + "norm1.weight", 0, d});
    uint64_t first = 0;
    for (const auto& [name, rows] : {std::pair<std::string, uint64_t>{"q", q}, {"k", kv}, {"v", kv}}) {
      const std::string attention = theirs + "self_attn." + name + "_proj.";
      pieces.push_back({attention + "weight", ours + "attn.qkv.weight", first, rows, d, false});
      if (m.qkv_bias) pieces.push_back({attention + "bias", ours + "attn.qkv.bias", first, rows});
      first += rows;
    }
    if (m.qk_norm) {
      pieces.push_back({theirs + "self_attn.q_norm.weight", ours + "attn.qnorm.weight", 0, m.head_width()});
      pieces.push_back({theirs + "self_attn.k_norm.weight", ours + "attn.knorm.weight", 0, m.head_width()});
    }
    pieces.push_back({theirs + "self_attn.o_proj.weight", ours + "attn.out.weight", 0, d, q, false});
    pieces.push_back({theirs + "post_attention_layernorm.weight", ours + "norm2.weight", 0, d});
    pieces.push_back({theirs + "mlp.gate_proj.weight", ours + "mlp.up.weight", 0, m.mlp, d, false});
    pieces.push_back({theirs + "mlp.up_proj.weight", ours + "mlp.up.weight", m.mlp, m.mlp, d, false});
    pieces.push_back({theirs + "mlp.down_proj.weight", ours + "mlp.down.weight", 0, d, m.mlp, false});
  }
  pieces.push_back({"model.norm.weight", "norm.weight", 0, d});
  if (!m.tie_embeddings) pieces.push_back({"lm_head.weight", "head.weight", 0, m.tokens(), d, false});
  return pieces;
}

std::vector<Piece> pieces_of(const ModelConfig& model) {
  return model.kind == ModelKind::kGpt2 ? gpt2_pieces(model) : llama_pieces(model);
}

// Tensors that carry no weights of ours: masks that old versions saved, frequencies, and a tied head saved anyway.
bool may_be_left_out(const std::string& name, const ModelConfig& model) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with("rotary_emb.inv_freq") ||
         (model.tie_embeddings && name == "lm_head.weight");
}

float from_half(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31u, fraction = bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = static_cast<float>(fraction) * 0x1p-24f;
  return sign != 0 ? -small : small;
}

float element(const std::byte* data, const std::string& dtype, uint64_t i) {
  if (dtype == "F32") {
    float value;
    std::memcpy(&value, data + 4 * i, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + 2 * i, 2);
  if (dtype == "F16") return from_half(bits);
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

// Where each tensor of a folder lies.
struct Found {
  std::shared_ptr<File> file;
  std::string path;
  safetensors::Entry entry;
  uint64_t header_bytes = 0;
};

Status add_file(FileSystem& files, const std::string& path, std::map<std::string, Found>& found) {
  auto opened = files.open(path, FileSystem::Open::kRead);
  if (!opened) return opened.error();
  const std::shared_ptr<File> file = std::move(*opened);
  PITCREW_ASSIGN(const uint64_t size, file->size());
  std::string text(8, '\0');
  PITCREW_TRY(file->read(std::as_writable_bytes(std::span(text)), 0));
  const auto length = safetensors::header_length(text);
  if (!length) return length.error().with_context(path);
  text.resize(std::min(*length, size));
  PITCREW_TRY(file->read(std::as_writable_bytes(std::span(text)), 0));
  auto header = safetensors::decode_header(text, size);
  if (!header) return header.error().with_context(path);
  for (safetensors::Entry& entry : header->entries) {
    const std::string name = entry.name;
    found[name] = {file, path, std::move(entry), header->header_bytes};
  }
  return {};
}

Result<std::map<std::string, Found>> open_tensors(FileSystem& files, const std::string& folder) {
  std::map<std::string, Found> found;
  const auto index = read_file(files, join_path(folder, kIndex), kIndexLimit);
  if (!index) {
    if (index.error().code != Code::kNotFound) return index.error();
    PITCREW_TRY(add_file(files, join_path(folder, kSingle), found));
    return found;
  }
  const auto json = parse_json(*index);
  const std::string path = join_path(folder, kIndex);
  if (!json || !json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object())
    return Error(Code::kDataLoss, path + ": has no weight_map; is it the index of safetensors?");
  std::set<std::string> names;
  for (const auto& [tensor, file] : (*json)["weight_map"].items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      return Error(Code::kDataLoss, path + ": weight_map." + tensor + " is no file name");
    names.insert(file.get<std::string>());
  }
  for (const std::string& name : names) PITCREW_TRY(add_file(files, join_path(folder, name), found));
  return found;
}

std::string text_of(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t extent : shape) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

Status read_piece(const Found& found, const Piece& piece, float* to) {
  const std::string what = found.path + ": " + piece.theirs;
  if (found.entry.shape != piece.their_shape()) {
    return Error(Code::kInvalidArgument, what + " is " + text_of(found.entry.shape) + ", the configuration wants " +
                                             text_of(piece.their_shape()) + "; see `pitcrew-train import`");
  }
  if (found.entry.dtype != "F32" && found.entry.dtype != "BF16" && found.entry.dtype != "F16")
    return Error(Code::kUnsupported, what + " is of " + found.entry.dtype + "; F32, BF16 and F16 can be read");
  std::vector<std::byte> bytes(found.entry.end - found.entry.begin);
  PITCREW_TRY(found.file->read(bytes, found.header_bytes + found.entry.begin));
  for (uint64_t row = 0; row < piece.rows; ++row) {
    for (uint64_t column = 0; column < piece.columns; ++column) {
      const uint64_t at = piece.turned ? column * piece.rows + row : row * piece.columns + column;
      to[row * piece.columns + column] = element(bytes.data(), found.entry.dtype, at);
    }
  }
  return {};
}

// Reads a folder's config.json; anything that would change what is computed and that we don't have is refused.
class ConfigReader {
 public:
  ConfigReader(Json json, std::string path) : json_(std::move(json)), path_(std::move(path)) {}

  Result<ModelConfig> read() {
    const std::string type = text("model_type");
    ModelConfig model;
    if (type == "gpt2") {
      read_gpt2(model);
    } else if (type == "llama" || type == "qwen2" || type == "qwen3") {
      read_llama(model, type);
    } else {
      unsupported("model_type is '" + type + "'; gpt2, llama, qwen2 and qwen3 can be imported");
    }
    if (!problem_.empty()) return Error(Code::kUnsupported, path_ + ": " + problem_);
    const Status valid = model.validate();
    if (!valid) return valid.error().with_context(path_);
    return model;
  }

 private:
  const Json* get(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  std::string text(const char* key) const {
    const Json* value = get(key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : "";
  }
  void unsupported(const std::string& what) { problem_ += (problem_.empty() ? "" : "; ") + what; }
  uint32_t number(const char* key, uint32_t fallback) {
    const Json* value = get(key);
    if (value == nullptr) return fallback;
    if (value->is_number_unsigned() && value->get<uint64_t>() <= UINT32_MAX) return value->get<uint32_t>();
    unsupported(std::string(key) + " is no number");
    return fallback;
  }
  double real(const char* key, double fallback) {
    const Json* value = get(key);
    if (value == nullptr) return fallback;
    if (value->is_number()) return value->get<double>();
    unsupported(std::string(key) + " is no number");
    return fallback;
  }
  bool flag(const char* key, bool fallback) const {
    const Json* value = get(key);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : fallback;
  }

  void read_gpt2(ModelConfig& model) {
    model.kind = ModelKind::kGpt2;
    model.layers = number("n_layer", 0);
    model.width = number("n_embd", 0);
    model.heads = model.kv_heads = number("n_head", 0);
    model.mlp = number("n_inner", 4 * model.width);
    model.vocab = number("vocab_size", 0);
    model.context = number("n_positions", 0);
    model.norm_eps = real("layer_norm_epsilon", 1e-5);
    model.tie_embeddings = flag("tie_word_embeddings", true);
    const std::string activation = text("activation_function");
    if (activation != "gelu_new" && activation != "gelu_pytorch_tanh")
      unsupported("activation_function is '" + activation + "', not gelu_new");
    if (flag("scale_attn_by_inverse_layer_idx", false) || !flag("scale_attn_weights", true))
      unsupported("attention is scaled by another rule than 1/√(head width)");
  }

  void read_llama(ModelConfig& model, const std::string& type) {
    model.kind = ModelKind::kLlama;
    model.layers = number("num_hidden_layers", 0);
    model.width = number("hidden_size", 0);
    model.heads = number("num_attention_heads", 0);
    model.kv_heads = number("num_key_value_heads", model.heads);
    model.mlp = number("intermediate_size", 0);
    model.vocab = number("vocab_size", 0);
    model.context = number("max_position_embeddings", 0);
    model.rope_theta = real("rope_theta", 10000);
    model.norm_eps = real("rms_norm_eps", 1e-6);
    model.tie_embeddings = flag("tie_word_embeddings", false);
    model.own_head_width = number("head_dim", 0);
    if (uint64_t{model.own_head_width} * model.heads == model.width) model.own_head_width = 0;
    model.qkv_bias = type == "qwen2";
    model.qk_norm = type == "qwen3";
    if (text("hidden_act") != "silu") unsupported("hidden_act is '" + text("hidden_act") + "', not silu");
    if (flag("attention_bias", false)) unsupported("attention_bias is on");
    if (flag("mlp_bias", false)) unsupported("mlp_bias is on");
    if (flag("use_sliding_window", false)) unsupported("use_sliding_window is on");
    if (const Json* scaling = get("rope_scaling")) read_scaling(*scaling, model);
  }

  void read_scaling(const Json& json, ModelConfig& model) {
    ConfigReader scaling(json, path_);
    std::string type = scaling.text("rope_type");
    if (type.empty()) type = scaling.text("type");
    if (type == "default") return;
    if (type != "llama3") return unsupported("rope_scaling is '" + type + "', not llama3");
    model.rope_scaling = {scaling.real("factor", 1), scaling.real("low_freq_factor", 1),
                          scaling.real("high_freq_factor", 4),
                          scaling.number("original_max_position_embeddings", 8192)};
    if (!scaling.problem_.empty()) unsupported(scaling.problem_);
  }

  const Json json_;
  const std::string path_;
  std::string problem_;
};

}  // namespace

Result<ModelConfig> read_config(FileSystem& files, const std::string& folder) {
  const std::string path = join_path(folder, "config.json");
  PITCREW_ASSIGN(const std::string text, read_file(files, path, kConfigLimit));
  auto json = parse_json(text);
  if (!json) return json.error().with_context(path);
  if (!json->is_object()) return Error(Code::kDataLoss, path + ": is no JSON object");
  return ConfigReader(std::move(*json), path).read();
}

Result<Json> config_of(const ModelConfig& m) {
  if (m.kind == ModelKind::kGpt2) {
    return Json{{"architectures", {"GPT2LMHeadModel"}},
                {"model_type", "gpt2"},
                {"n_layer", m.layers},
                {"n_embd", m.width},
                {"n_head", m.heads},
                {"n_inner", m.mlp},
                {"vocab_size", m.tokens()},
                {"n_positions", m.context},
                {"layer_norm_epsilon", m.norm_eps},
                {"activation_function", "gelu_new"},
                {"tie_word_embeddings", m.tie_embeddings}};
  }
  if (m.qkv_bias && m.qk_norm) {
    return Error(Code::kUnsupported,
                 "export: transformers has no model with both qkvBias and qkNorm; turn one of them off");
  }
  const char* type = m.qkv_bias ? "qwen2" : m.qk_norm ? "qwen3" : "llama";
  const char* name = m.qkv_bias ? "Qwen2ForCausalLM" : m.qk_norm ? "Qwen3ForCausalLM" : "LlamaForCausalLM";
  if (m.qkv_bias && m.own_head_width != 0)
    return Error(Code::kUnsupported, "export: transformers' qwen2 has no headWidth of its own");
  Json json{{"architectures", {name}},
            {"model_type", type},
            {"num_hidden_layers", m.layers},
            {"hidden_size", m.width},
            {"num_attention_heads", m.heads},
            {"num_key_value_heads", m.kv_heads},
            {"intermediate_size", m.mlp},
            {"vocab_size", m.tokens()},
            {"max_position_embeddings", m.context},
            {"rope_theta", m.rope_theta},
            {"rms_norm_eps", m.norm_eps},
            {"hidden_act", "silu"},
            {"tie_word_embeddings", m.tie_embeddings}};
  if (!m.qkv_bias) json["head_dim"] = m.head_width();
  if (const RopeScaling& scaling = m.rope_scaling; scaling.factor != 1) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", scaling.factor},
                            {"low_freq_factor", scaling.low_factor},
                            {"high_freq_factor", scaling.high_factor},
                            {"original_max_position_embeddings", scaling.original_context}};
  }
  return json;
}

Status read_weights(FileSystem& files, const std::string& folder, const ModelConfig& model,
                    const ParameterLayout& layout, std::span<float> params) {
  PITCREW_ASSIGN(auto found, open_tensors(files, folder));
  for (const Piece& piece : pieces_of(model)) {
    auto at = found.find(piece.theirs);
    // GPT-2's oldest files were saved from the model without its head.
    if (at == found.end() && piece.theirs.starts_with("transformer.")) at = found.find(piece.theirs.substr(12));
    if (at == found.end()) return Error(Code::kDataLoss, folder + ": there is no tensor " + piece.theirs);
    const Slice* slice = layout.arena.find(piece.ours);
    PITCREW_INVARIANT(slice != nullptr, "an imported tensor has a place: " + piece.ours);
    PITCREW_TRY(
        read_piece(at->second, piece, params.data() + layout.element<float>(*slice) + piece.first * piece.columns));
    found.erase(at);
  }
  for (const auto& [name, left] : found) {
    if (may_be_left_out(name, model)) continue;
    return Error(Code::kInvalidArgument,
                 left.path + ": " + name + " has no place in the configured model; see " + "`pitcrew-train import`");
  }
  return {};
}

Status write_model(FileSystem& files, const std::string& folder, const ModelConfig& model,
                   const ParameterLayout& layout, std::span<const float> params, DType dtype) {
  PITCREW_INVARIANT(dtype == DType::kF32 || dtype == DType::kBF16, "weights are exported as F32 or BF16");
  PITCREW_ASSIGN(Json config, config_of(model));
  config["torch_dtype"] = dtype == DType::kF32 ? "float32" : "bfloat16";
  PITCREW_TRY(make_folders(files, folder));
  PITCREW_TRY(replace_file(files, join_path(folder, "config.json"), config.dump(2) + "\n"));

  const std::vector<Piece> pieces = pieces_of(model);
  std::vector<safetensors::Entry> entries;
  uint64_t at = 0;
  for (const Piece& piece : pieces) {
    const uint64_t bytes = piece.rows * piece.columns * size_of(dtype);
    entries.push_back({piece.theirs, std::string(safetensors::dtype_name(dtype)), piece.their_shape(), at, at + bytes});
    at += bytes;
  }
  const std::string header = safetensors::encode_header(entries, {{"format", "pt"}}, 8);
  const std::string path = join_path(folder, kSingle), temporary = path + ".tmp";
  {
    PITCREW_ASSIGN(const auto file, files.open(temporary, FileSystem::Open::kCreate));
    PITCREW_TRY(file->write(std::as_bytes(std::span(header)), 0));
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      const float* from =
          params.data() + layout.element<float>(*layout.arena.find(piece.ours)) + piece.first * piece.columns;
      std::vector<std::byte> bytes(entries[i].end - entries[i].begin);
      for (uint64_t row = 0; row < piece.rows; ++row) {
        for (uint64_t column = 0; column < piece.columns; ++column) {
          const uint64_t to = piece.turned ? column * piece.rows + row : row * piece.columns + column;
          const float value = from[row * piece.columns + column];
          const BF16 rounded(value);
          if (dtype == DType::kF32) {
            std::memcpy(bytes.data() + 4 * to, &value, 4);
          } else {
            std::memcpy(bytes.data() + 2 * to, &rounded, 2);
          }
        }
      }
      PITCREW_TRY(file->write(bytes, header.size() + entries[i].begin));
    }
    PITCREW_TRY(file->sync());
  }
  PITCREW_TRY(files.rename(temporary, path));
  return files.sync_folder(folder);
}

}  // namespace pitcrew::trainer::hugging_face
