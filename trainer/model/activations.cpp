#include "trainer/model/activations.hpp"

#include <algorithm>
#include <functional>

namespace pitcrew::trainer {

namespace {

// Predictions whose logits exist at a time. On a CPU at most a million logits, but at least 64 rows, so that the
// products stay efficient; a GPU needs some thousand rows to be busy.
template <typename T>
uint64_t chunk_rows(uint64_t rows, uint64_t vocab) {
  if constexpr (std::is_same_v<T, BF16>) {
    constexpr uint64_t kLogits = uint64_t{1} << 28, kStep = 1024;
    return std::min(rows, std::max(kStep, kLogits / vocab / kStep * kStep));
  }
  return std::min(rows, std::max<uint64_t>(64, (uint64_t{1} << 20) / vocab));
}

}  // namespace

uint64_t small_elements(const ModelConfig& config) {
  const uint64_t norm = (config.kind == ModelKind::kGpt2 ? 2 : 1) * small_stride(config.width);
  const uint64_t heads = config.qk_norm ? 2 * small_stride(config.head_width()) : 0;
  return config.layers * (2 * norm + heads) + norm;
}

template <typename T>
class Activations<T>::Plan {
 public:
  template <typename U>
  void add(U*& pointer, const std::string& name, std::vector<uint64_t> shape) {
    refer(pointer, layout_.add(name, kDType<U>, std::move(shape)));
  }
  // Blocks that don't keep it share one.
  template <typename U>
  void add(bool kept, U*& pointer, const std::string& prefix, const std::string& name, std::vector<uint64_t> shape) {
    if (kept) return add(pointer, prefix + name, std::move(shape));
    const auto found = shared_.find(name);
    if (found != shared_.end()) return refer(pointer, found->second);
    shared_[name] = layout_.slices().size();
    add(pointer, "layers." + name, std::move(shape));
  }
  // Elements of a type that no tensor has.
  template <typename U>
  void add_bytes(U*& pointer, const std::string& name, uint64_t elements) {
    refer(pointer, layout_.add(name, DType::kU8, {elements * sizeof(U)}));
  }
  ArenaLayout& layout() { return layout_; }
  void point_into(const Arena& arena) const {
    for (const auto& [set, slice] : pointers_) set(arena.data() + arena.layout()[slice].offset);
  }

 private:
  template <typename U>
  void refer(U*& pointer, size_t slice) {
    pointers_.emplace_back([&pointer](std::byte* data) { pointer = reinterpret_cast<U*>(data); }, slice);
  }

  ArenaLayout layout_;
  std::vector<std::pair<std::function<void(std::byte*)>, size_t>> pointers_;
  std::map<std::string, size_t> shared_;
};

template <typename T>
void Activations<T>::describe(const ModelConfig& config, LaneShape largest, Recompute recompute, uint32_t ranks,
                              Plan& plan) {
  const uint64_t rows = largest.predictions(), width = config.width, attention_width = config.attention_width();
  const uint64_t up_width = config.kind == ModelKind::kLlama ? 2 * uint64_t{config.mlp} : config.mlp;
  const bool centered = config.kind == ModelKind::kGpt2;
  const bool keep = !recompute.block;
  const uint64_t own = rows / ranks;
  blocks.resize(config.layers);
  chunk = chunk_rows<T>(rows, config.vocab);
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    BlockActivations<T>& block = blocks[layer];
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const auto plan_norm = [&](T*& norm, Wide<T>*& mean, Wide<T>*& rstd, const std::string& name) {
      plan.add(keep && !recompute.norms, norm, prefix, name, {own, width});
      plan.add(keep, rstd, prefix, name + ".rstd", {own});
      if (centered) plan.add(keep, mean, prefix, name + ".mean", {own});
    };
    plan.add(block.in, prefix + "in", {own, width});
    plan_norm(block.norm1, block.mean1, block.rstd1, "norm1");
    plan.add(keep, block.qkv, prefix, "qkv", {rows, config.qkv_width()});
    if (config.qk_norm) {
      const uint64_t heads = uint64_t{config.heads} + config.kv_heads;
      plan.add(keep, block.heads, prefix, "heads", {rows, heads * config.head_width()});
      plan.add(keep, block.heads_rstd, prefix, "heads.rstd", {rows, heads});
    }
    plan.add(keep, block.attention, prefix, "attention", {rows, attention_width});
    plan.add(keep, block.log_sum, prefix, "log_sum", {config.heads, rows});
    plan.add(keep, block.middle, prefix, "middle", {own, width});
    plan_norm(block.norm2, block.mean2, block.rstd2, "norm2");
    plan.add(keep, block.up, prefix, "up", {rows, up_width});
    plan.add(keep && !recompute.activation, block.hidden, prefix, "hidden", {rows, config.mlp});
  }
  plan.add(branch, "branch", {own, width});
  plan.add(out, "out", {own, width});
  plan.add(norm, "norm", {own, width});
  plan.add(rstd, "norm.rstd", {own});
  if (centered) plan.add(mean, "norm.mean", {own});
  plan.add(logits, "logits", {chunk, config.vocab});
  plan.add(losses, "losses", {rows});
  plan.add(d_stream, "d_stream", {own, width});
  plan.add(d_norm, "d_norm", {own, width});
  if (rows * attention_width != own * width) plan.add(d_attention, "d_attention", {rows, attention_width});
  plan.add(d_qkv, "d_qkv", {rows, config.qkv_width()});
  plan.add(d_hidden, "d_hidden", {rows, config.mlp});
  if (config.kind == ModelKind::kLlama) {
    plan.add(cosines, "cosines", {largest.tokens, config.head_width() / 2});
    plan.add(sines, "sines", {largest.tokens, config.head_width() / 2});
  }
  if (ranks == 1) return;
  plan.add(gathered, "gathered", {rows, width});
  plan.add(partial, "partial", {rows, width});
  plan.add_bytes(softmax, "softmax", chunk);
  plan.add_bytes(softmax_of_all, "softmax of all", ranks * chunk);
  plan.add(small, "small gradients", {small_elements(config)});
  plan.add(small_of_all, "small gradients of all", {ranks, small_elements(config)});
}

template <typename T>
ArenaLayout Activations<T>::layout(const ModelConfig& part, LaneShape largest, Recompute recompute, uint32_t ranks) {
  Activations described;
  Plan plan;
  described.describe(part, largest, recompute, ranks, plan);
  return std::move(plan.layout());
}

// First the plan, then the memory, then the pointers into it.
template <typename T>
Result<Activations<T>> Activations<T>::create(const ModelConfig& part, LaneShape largest, Recompute recompute,
                                              Device& device, uint32_t ranks) {
  Activations made;
  Plan plan;
  made.describe(part, largest, recompute, ranks, plan);
  PITCREW_ASSIGN(made.arena, Arena::create(device, "activations", plan.layout()));
  plan.point_into(made.arena);
  if (made.d_attention == nullptr) made.d_attention = made.d_norm;
  return made;
}

template struct Activations<float>;
template struct Activations<double>;
template struct Activations<BF16>;

}  // namespace pitcrew::trainer
