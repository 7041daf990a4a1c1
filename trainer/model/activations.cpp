#include "trainer/model/activations.hpp"

#include <algorithm>
#include <functional>

namespace pitcrew::trainer {

namespace {

// Logits of a chunk: at most a million, but at least 64 rows, so that the products stay efficient.
uint64_t chunk_rows(uint64_t rows, uint64_t vocab) {
  return std::min(rows, std::max<uint64_t>(64, (uint64_t{1} << 20) / vocab));
}

}  // namespace

template <typename T>
Result<Activations<T>> Activations<T>::create(const ModelConfig& config, LaneShape largest, Device& device) {
  const uint64_t rows = largest.predictions(), width = config.width;
  const uint64_t up_width = config.kind == ModelKind::kLlama ? 2 * uint64_t{config.mlp} : config.mlp;
  const DType dtype = sizeof(T) == 4 ? DType::kF32 : DType::kF64;
  Activations made;
  made.blocks.resize(config.layers);
  made.chunk = chunk_rows(rows, config.vocab);

  // First the plan, then the memory, then the pointers into it.
  ArenaLayout layout;
  std::vector<std::pair<T**, size_t>> pointers;
  const auto plan = [&](T*& pointer, const std::string& name, std::vector<uint64_t> shape) {
    pointers.emplace_back(&pointer, layout.add(name, dtype, std::move(shape)));
  };
  const auto plan_norm = [&](T*& norm, T*& mean, T*& rstd, const std::string& name) {
    plan(norm, name, {rows, width});
    plan(rstd, name + ".rstd", {rows});
    if (config.kind == ModelKind::kGpt2) plan(mean, name + ".mean", {rows});
  };
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    BlockActivations<T>& block = made.blocks[layer];
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    plan(block.in, prefix + "in", {rows, width});
    plan_norm(block.norm1, block.mean1, block.rstd1, prefix + "norm1");
    plan(block.qkv, prefix + "qkv", {rows, config.qkv_width()});
    plan(block.attention, prefix + "attention", {rows, width});
    plan(block.log_sum, prefix + "log_sum", {config.heads, rows});
    plan(block.middle, prefix + "middle", {rows, width});
    plan_norm(block.norm2, block.mean2, block.rstd2, prefix + "norm2");
    plan(block.up, prefix + "up", {rows, up_width});
    plan(block.hidden, prefix + "hidden", {rows, config.mlp});
  }
  plan(made.branch, "branch", {rows, width});
  plan(made.out, "out", {rows, width});
  plan_norm(made.norm, made.mean, made.rstd, "norm");
  plan(made.logits, "logits", {made.chunk, config.vocab});
  plan(made.losses, "losses", {rows});
  plan(made.d_stream, "d_stream", {rows, width});
  plan(made.d_norm, "d_norm", {rows, width});
  plan(made.d_qkv, "d_qkv", {rows, config.qkv_width()});
  plan(made.d_hidden, "d_hidden", {rows, config.mlp});
  if (config.kind == ModelKind::kLlama) {
    plan(made.cosines, "cosines", {largest.tokens, config.head_width() / 2});
    plan(made.sines, "sines", {largest.tokens, config.head_width() / 2});
  }
  PITCREW_ASSIGN(made.arena, Arena::create(device, "activations", std::move(layout)));
  for (const auto& [pointer, slice] : pointers) *pointer = made.arena.template at<T>(slice);
  return made;
}

template struct Activations<float>;
template struct Activations<double>;

}  // namespace pitcrew::trainer
