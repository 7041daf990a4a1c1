#include "trainer/model/decoder.hpp"

#include <algorithm>

#include "trainer/model/tensor_part.hpp"

namespace pitcrew::trainer {

template <typename T>
Result<std::unique_ptr<Model<T>>> Model<T>::create(const ModelConfig& config, LaneShape largest, Device& device,
                                                   Kernels<T>& kernels, Recompute recompute, TensorGroup* tensor) {
  return Decoder<T>::create(config, largest, device, kernels, recompute, tensor);
}

template <typename T>
Result<std::unique_ptr<Model<T>>> Decoder<T>::create(const ModelConfig& config, LaneShape largest, Device& device,
                                                     Kernels<T>& kernels, Recompute recompute, TensorGroup* tensor) {
  if (tensor != nullptr && tensor->place().size == 1) tensor = nullptr;
  const uint32_t ranks = tensor != nullptr ? tensor->place().size : 1;
  PITCREW_TRY(config.validate());
  if (largest.sequences == 0 || largest.tokens == 0 || largest.tokens > config.context) {
    return Error(Code::kInvalidArgument, "create model for lanes of " + std::to_string(largest.sequences) + " × " +
                                             std::to_string(largest.tokens) +
                                             " tokens: both must be positive and the length at most model.context, " +
                                             std::to_string(config.context));
  }
  PITCREW_TRY(check_predictions(largest.predictions(), ranks));
  PITCREW_ASSIGN(const ModelConfig part, tensor_part(config, ranks));
  PITCREW_ASSIGN(auto activations, Activations<T>::create(part, largest, recompute, device, ranks));
  if (config.kind == ModelKind::kLlama) {
    const size_t elements = size_t{largest.tokens} * config.head_width() / 2;
    std::vector<Wide<T>> cosines(elements), sines(elements);
    rope_table(largest.tokens, config.head_width(), config.rope_theta, config.rope_scaling, cosines.data(),
               sines.data());
    const auto stream = device.create_stream("rope table");
    stream->copy(activations.cosines, cosines.data(), elements * sizeof(Wide<T>));
    stream->copy(activations.sines, sines.data(), elements * sizeof(Wide<T>));
    stream->synchronize();
  }
  return std::unique_ptr<Model<T>>(
      new Decoder(config, part, largest, recompute, kernels, std::move(activations), tensor));
}

template <typename T>
Decoder<T>::Decoder(const ModelConfig& config, const ModelConfig& part, LaneShape largest, Recompute recompute,
                    Kernels<T>& kernels, Activations<T> activations, TensorGroup* tensor)
    : config_(config),
      part_(part),
      tensor_(tensor),
      place_(tensor != nullptr ? tensor->place() : TensorPlace{}),
      largest_(largest),
      recompute_(recompute),
      kernels_(kernels),
      acts_(std::move(activations)),
      products_(config_.width, tensor, kernels, acts_),
      small_(tensor, kernels, acts_, last_unit() + 1),
      norms_(config_, part_, place_.size, kernels, acts_, small_),
      blocks_(config.layers) {
  const ParameterLayout layout = parameter_layout<T>(config, place_);
  const auto offset = [&](const std::string& name) { return layout.template element<T>(*layout.arena.find(name)); };
  const auto weights = [&](const std::string& name) {
    Weights found{.weight = offset(name + ".weight")};
    found.has_bias = layout.arena.find(name + ".bias") != nullptr;
    if (found.has_bias) found.bias = offset(name + ".bias");
    return found;
  };
  embedding_ = offset("embed.weight");
  if (config.kind == ModelKind::kGpt2) positions_ = offset("position.weight");
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    Block& block = blocks_[layer];
    block.norm1 = weights(prefix + "norm1");
    block.qkv = weights(prefix + "attn.qkv");
    if (config.qk_norm) {
      block.q_norm = weights(prefix + "attn.qnorm");
      block.k_norm = weights(prefix + "attn.knorm");
    }
    block.out = weights(prefix + "attn.out");
    block.norm2 = weights(prefix + "norm2");
    block.up = weights(prefix + "mlp.up");
    block.down = weights(prefix + "mlp.down");
  }
  final_norm_ = weights("norm");
  head_ = {.weight = config.tie_embeddings ? embedding_ : offset("head.weight")};
  number_small_gradients();
}

template <typename T>
void Decoder<T>::number_small_gradients() {
  for (uint32_t layer = 0; layer < config_.layers; ++layer) {
    Block& block = blocks_[layer];
    small_.number(layer + 1, block.norm1, config_.width);
    small_.number(layer + 1, block.norm2, config_.width);
    if (!config_.qk_norm) continue;
    small_.number(layer + 1, block.q_norm, config_.head_width());
    small_.number(layer + 1, block.k_norm, config_.head_width());
  }
  small_.number(last_unit(), final_norm_, config_.width);
  PITCREW_INVARIANT(small_.elements() == small_elements(config_), "there is room for each");
}

template <typename T>
void Decoder<T>::check(LaneShape shape) const {
  PITCREW_INVARIANT(
      shape.predictions() > 0 && shape.predictions() <= largest_.predictions() && shape.tokens <= largest_.tokens,
      "a lane is larger than what the model was created for");
  PITCREW_INVARIANT(shape.predictions() % place_.size == 0, "a lane's predictions are dealt evenly to tensor ranks");
}

template <typename T>
void Decoder<T>::forward_backward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape,
                                  Wide<T>* gradients, Gradients mode, double loss_scale, double* loss) {
  check(shape);
  const Pass pass{stream,    params, tokens, size_t{shape.tokens} + 1, shape, gradients, mode == Gradients::kAdd,
                  loss_scale};
  blocks_forward(pass);
  backward(pass, loss);
}

template <typename T>
void Decoder<T>::forward_backward(Stream& stream, ModelUnits<T>& units, const int32_t* tokens, LaneShape shape,
                                  double* loss) {
  check(shape);
  const Pass pass{stream, nullptr, tokens, size_t{shape.tokens} + 1, shape, nullptr, false, 1.0, &units};
  blocks_forward(pass);
  backward(pass, loss);
}

template <typename T>
void Decoder<T>::backward(const Pass& pass, double* loss) {
  const Pass head = enter(pass, head_unit(), true);
  head_loss(head, loss);
  leave(pass, head_unit());
  const Pass last = enter(pass, last_unit(), true);
  norms_.backward(last, final_norm_, acts_.out, acts_.mean, acts_.rstd, acts_.d_norm, false);
  leave(pass, last_unit());
  leave_backward(last, last_unit());
  for (uint32_t layer = config_.layers; layer-- > 0;) {
    const Pass block = enter(pass, layer + 1, true);
    block_backward(block, layer);
    leave(pass, layer + 1);
    leave_backward(block, layer + 1);
  }
  Pass embedding = pass;
  if (pass.units != nullptr) embedding.gradients = pass.units->gradients(pass.stream, 0);
  embed_backward(embedding);
  leave_backward(embedding, 0);
  if (pass.units == nullptr) small_.add_up(pass, 0, last_unit() + 1);
}

template <typename T>
auto Decoder<T>::enter(const Pass& pass, uint32_t unit, bool backward) const -> Pass {
  if (pass.units == nullptr) return pass;
  Pass own = pass;
  own.params = pass.units->weights(unit);
  if (backward) own.gradients = pass.units->gradients(pass.stream, unit);
  return own;
}

template <typename T>
void Decoder<T>::leave(const Pass& pass, uint32_t unit) const {
  if (pass.units != nullptr) pass.units->release_weights(pass.stream, unit);
}

template <typename T>
void Decoder<T>::leave_backward(const Pass& entered, uint32_t unit) {
  if (entered.units == nullptr) return;
  // Before the unit's gradient is dealt out; without units once for all.
  small_.add_up(entered, unit, unit + 1);
  entered.units->release_gradients(entered.stream, unit);
}

template <typename T>
void Decoder<T>::forward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape, double* loss) {
  check(shape);
  const Pass pass{stream, params, tokens, size_t{shape.tokens} + 1, shape};
  blocks_forward(pass);
  head_loss(pass, loss);
}

template <typename T>
void Decoder<T>::forward(Stream& stream, ModelUnits<T>& units, const int32_t* tokens, LaneShape shape, double* loss) {
  check(shape);
  const Pass pass{stream, nullptr, tokens, size_t{shape.tokens} + 1, shape, nullptr, false, 0, &units};
  blocks_forward(pass);
  head_loss(enter(pass, head_unit(), false), loss);
  leave(pass, head_unit());
}

template <typename T>
void Decoder<T>::logits(Stream& stream, const T* params, const int32_t* tokens, uint32_t count, T* logits) {
  PITCREW_INVARIANT(tensor_ == nullptr, "logits are asked of a whole model");
  const LaneShape shape{1, count};
  check(shape);
  const Pass pass{stream, params, tokens, count, shape};
  blocks_forward(pass);
  products_.linear(pass, head_, acts_.norm + (count - 1) * size_t{config_.width}, config_.width, logits, config_.vocab,
                   1);
}

template <typename T>
void Decoder<T>::embed(const Pass& pass) {
  T* const in = acts_.blocks[0].in;
  kernels_.enqueue(pass.stream, EmbeddingForward<T>{
                                    .sequences = pass.shape.sequences,
                                    .length = pass.shape.tokens,
                                    .width = config_.width,
                                    .tokens = pass.tokens,
                                    .token_stride = pass.token_stride,
                                    .table = pass.params + embedding_,
                                    .positions = config_.kind == ModelKind::kGpt2 ? pass.params + positions_ : nullptr,
                                    .out = products_.partial_or(in),
                                    .held = held_rows(config_.vocab, place_),
                                    .held_positions = held_rows(config_.context, place_)});
  // Of each row one rank has the token and one the position; the others bring zeros.
  if (tensor_ != nullptr) products_.add_parts(pass, in, nullptr);
}

template <typename T>
void Decoder<T>::embed_backward(const Pass& pass) {
  const bool gpt2 = config_.kind == ModelKind::kGpt2;
  const HeldRows held = held_rows(config_.vocab, place_), held_positions = held_rows(config_.context, place_);
  if (!pass.add) {
    // Where embeddings are tied, the head has already written its part.
    const size_t width = config_.width * sizeof(Wide<T>);
    if (!config_.tie_embeddings) pass.stream.zero(pass.gradients + embedding_, held.count * width);
    if (gpt2) pass.stream.zero(pass.gradients + positions_, held_positions.count * width);
  }
  kernels_.enqueue(pass.stream, EmbeddingBackward<T>{.sequences = pass.shape.sequences,
                                                     .length = pass.shape.tokens,
                                                     .width = config_.width,
                                                     .tokens = pass.tokens,
                                                     .token_stride = pass.token_stride,
                                                     .d_out = products_.gathered(pass, acts_.d_stream),
                                                     .d_table = pass.gradients + embedding_,
                                                     .d_positions = gpt2 ? pass.gradients + positions_ : nullptr,
                                                     .held = held,
                                                     .held_positions = held_positions});
}

template <typename T>
void Decoder<T>::blocks_forward(const Pass& pass) {
  embed(enter(pass, 0, false));
  leave(pass, 0);
  for (uint32_t layer = 0; layer < config_.layers; ++layer) {
    block_forward(enter(pass, layer + 1, false), layer);
    leave(pass, layer + 1);
  }
  norms_.forward(enter(pass, last_unit(), false), final_norm_, acts_.branch, acts_.blocks.back().middle, acts_.out,
                 acts_.norm, acts_.mean, acts_.rstd);
  leave(pass, last_unit());
}

template <typename T>
void Decoder<T>::block_forward(const Pass& pass, uint32_t layer) {
  const Block& block = blocks_[layer];
  const BlockActivations<T>& act = acts_.blocks[layer];
  if (layer == 0) {
    norms_.forward(pass, block.norm1, act.in, nullptr, nullptr, act.norm1, act.mean1, act.rstd1);
  } else {
    norms_.forward(pass, block.norm1, acts_.branch, acts_.blocks[layer - 1].middle, act.in, act.norm1, act.mean1,
                   act.rstd1);
  }
  block_body(pass, layer, false);
}

template <typename T>
void Decoder<T>::block_body(const Pass& pass, uint32_t layer, bool again) {
  const Block& block = blocks_[layer];
  const BlockActivations<T>& act = acts_.blocks[layer];
  products_.by_rows(pass, block.qkv, act.norm1, act.qkv, part_.qkv_width());
  if (config_.qk_norm) norms_.heads_forward(pass, block.q_norm, block.k_norm, act);
  rope(pass, act.qkv, false);
  kernels_.enqueue(pass.stream, AttentionForward<T>{.sequences = pass.shape.sequences,
                                                    .length = pass.shape.tokens,
                                                    .heads = part_.heads,
                                                    .kv_heads = part_.kv_heads,
                                                    .head_width = config_.head_width(),
                                                    .qkv = act.qkv,
                                                    .out = act.attention,
                                                    .log_sum = act.log_sum});
  products_.by_columns(pass, block.out, act.attention, part_.attention_width(), acts_.branch);

  norms_.forward(pass, block.norm2, acts_.branch, act.in, act.middle, act.norm2, act.mean2, act.rstd2);
  const size_t up_width = (config_.kind == ModelKind::kGpt2 ? 1 : 2) * size_t{part_.mlp};
  products_.by_rows(pass, block.up, act.norm2, act.up, up_width);
  activation_forward(pass, layer);
  if (!again) products_.by_columns(pass, block.down, act.hidden, part_.mlp, acts_.branch);
}

template <typename T>
void Decoder<T>::activation_forward(const Pass& pass, uint32_t layer) {
  const BlockActivations<T>& act = acts_.blocks[layer];
  if (config_.kind == ModelKind::kGpt2) {
    kernels_.enqueue(pass.stream, GeluForward<T>{.elements = pass.rows() * part_.mlp, .x = act.up, .out = act.hidden});
  } else {
    kernels_.enqueue(pass.stream,
                     SwiGluForward<T>{.rows = pass.rows(), .width = part_.mlp, .gate_up = act.up, .out = act.hidden});
  }
}

template <typename T>
void Decoder<T>::block_backward(const Pass& pass, uint32_t layer) {
  const Block& block = blocks_[layer];
  const BlockActivations<T>& act = acts_.blocks[layer];
  const size_t rows = pass.rows(), width = config_.width;
  const bool gpt2 = config_.kind == ModelKind::kGpt2;

  if (recompute_.block) {
    norms_.forward(pass, block.norm1, act.in, nullptr, nullptr, act.norm1, act.mean1, act.rstd1);
    block_body(pass, layer, true);
  } else if (recompute_.activation) {
    activation_forward(pass, layer);
  }
  products_.linear_backward(pass, block.down, act.hidden, part_.mlp, products_.gathered(pass, acts_.d_stream), width,
                            acts_.d_hidden);
  if (gpt2) {
    kernels_.enqueue(
        pass.stream,
        GeluBackward<T>{.elements = rows * part_.mlp, .x = act.up, .d_out = acts_.d_hidden, .d_x = act.up});
  } else {
    kernels_.enqueue(
        pass.stream,
        SwiGluBackward<T>{
            .rows = rows, .width = part_.mlp, .gate_up = act.up, .d_out = acts_.d_hidden, .d_gate_up = act.up});
  }
  if (recompute_.norms && !recompute_.block) {
    norms_.forward(pass, block.norm2, act.middle, nullptr, nullptr, act.norm2, act.mean2, act.rstd2);
  }
  products_.by_rows_backward(pass, block.up, act.norm2, act.up, (gpt2 ? 1 : 2) * size_t{part_.mlp}, acts_.d_norm);
  norms_.backward(pass, block.norm2, act.middle, act.mean2, act.rstd2, acts_.d_norm, true);

  products_.linear_backward(pass, block.out, act.attention, part_.attention_width(),
                            products_.gathered(pass, acts_.d_stream), width, acts_.d_attention);
  kernels_.enqueue(pass.stream, AttentionBackward<T>{.sequences = pass.shape.sequences,
                                                     .length = pass.shape.tokens,
                                                     .heads = part_.heads,
                                                     .kv_heads = part_.kv_heads,
                                                     .head_width = config_.head_width(),
                                                     .qkv = act.qkv,
                                                     .out = act.attention,
                                                     .log_sum = act.log_sum,
                                                     .d_out = acts_.d_attention,
                                                     .d_qkv = acts_.d_qkv});
  rope(pass, acts_.d_qkv, true);
  if (config_.qk_norm) norms_.heads_backward(pass, block.q_norm, block.k_norm, act);
  if (recompute_.norms && !recompute_.block) {
    norms_.forward(pass, block.norm1, act.in, nullptr, nullptr, act.norm1, act.mean1, act.rstd1);
  }
  products_.by_rows_backward(pass, block.qkv, act.norm1, acts_.d_qkv, part_.qkv_width(), acts_.d_norm);
  norms_.backward(pass, block.norm1, act.in, act.mean1, act.rstd1, acts_.d_norm, true);
}

// The head and its loss, a chunk of predictions at a time: logits turn into their gradients in place and are used up.
template <typename T>
void Decoder<T>::head_loss(const Pass& pass, double* loss) {
  const bool backward = pass.gradients != nullptr;
  const size_t width = config_.width, vocab = part_.vocab;
  const T* const all = products_.gathered(pass, acts_.norm);
  T* const d_all = products_.partial_or(acts_.d_norm);
  Pass chunk_pass = pass;
  for (size_t first = 0; first < pass.rows(); first += acts_.chunk) {
    const size_t rows = std::min<size_t>(acts_.chunk, pass.rows() - first);
    const T* x = all + first * width;
    products_.linear(pass, head_, x, width, acts_.logits, vocab, rows);
    cross_entropy(pass, first, rows);
    if (!backward) continue;
    chunk_pass.shape = {1, static_cast<uint32_t>(rows)};
    chunk_pass.add = pass.add || first > 0;
    products_.linear_backward(chunk_pass, head_, x, width, acts_.logits, vocab, d_all + first * width);
  }
  if (backward && tensor_ != nullptr) products_.add_parts(pass, acts_.d_norm, nullptr);
  kernels_.enqueue(pass.stream, Sum<Wide<T>>{.elements = pass.rows(), .x = acts_.losses, .sum = loss});
}

// Of tensor ranks each has its columns of the logits, and hears of the others three numbers for each row.
template <typename T>
void Decoder<T>::cross_entropy(const Pass& pass, size_t first, size_t rows) {
  const HeldRows held = held_rows(config_.vocab, place_);
  const size_t used = std::min(held.count, config_.tokens() - std::min<size_t>(held.first, config_.tokens()));
  if (tensor_ != nullptr) {
    kernels_.enqueue(pass.stream, CrossEntropyPart<T>{.rows = rows,
                                                      .vocab = part_.vocab,
                                                      .used = used,
                                                      .first = held.first,
                                                      .logits = acts_.logits,
                                                      .tokens = pass.tokens,
                                                      .token_stride = pass.token_stride,
                                                      .length = pass.shape.tokens,
                                                      .first_row = first,
                                                      .parts = acts_.softmax});
    tensor_->all_gather(pass.stream, acts_.softmax, acts_.softmax_of_all, rows * sizeof(SoftmaxPart<Wide<T>>));
  }
  kernels_.enqueue(pass.stream, CrossEntropy<T>{.rows = rows,
                                                .vocab = part_.vocab,
                                                .used = used,
                                                .logits = acts_.logits,
                                                .tokens = pass.tokens,
                                                .token_stride = pass.token_stride,
                                                .length = pass.shape.tokens,
                                                .first_row = first,
                                                .losses = acts_.losses + first,
                                                .backward = pass.gradients != nullptr,
                                                .scale = pass.loss_scale,
                                                .parts = tensor_ != nullptr ? acts_.softmax_of_all : nullptr,
                                                .ranks = place_.size,
                                                .first = held.first});
}

template <typename T>
void Decoder<T>::rope(const Pass& pass, T* qkv, bool inverse) {
  if (config_.kind != ModelKind::kLlama) return;
  kernels_.enqueue(pass.stream, Rope<T>{.sequences = pass.shape.sequences,
                                        .length = pass.shape.tokens,
                                        .heads = size_t{part_.heads} + part_.kv_heads,
                                        .head_width = config_.head_width(),
                                        .row_stride = part_.qkv_width(),
                                        .x = qkv,
                                        .cosines = acts_.cosines,
                                        .sines = acts_.sines,
                                        .inverse = inverse});
}

template class Model<float>;
template class Model<double>;
template class Decoder<float>;
template class Decoder<double>;
template class Model<BF16>;
template class Decoder<BF16>;

}  // namespace pitcrew::trainer
