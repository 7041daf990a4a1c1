#include "trainer/model/parameters.hpp"

#include <algorithm>
#include <cmath>

#include "trainer/tensor/philox.hpp"

namespace pitcrew::trainer {

namespace {

constexpr double kInitStd = 0.02;  // GPT-2; projections into the residual stream are divided by √(2 layers)

template <typename T>
class LayoutBuilder {
 public:
  explicit LayoutBuilder(bool biases) : biases_(biases) {}

  void matrix(const std::string& name, uint64_t out, uint64_t in, double std) {
    layout_.parameters.push_back(
        {.slice = layout_.arena.add(name + ".weight", kDType<Wide<T>>, {out, in}), .decay = true, .init_std = std});
  }
  void linear(const std::string& name, uint64_t out, uint64_t in, double std) {
    matrix(name, out, in, std);
    if (biases_) bias(name, out);
  }
  void norm(const std::string& name, uint64_t width) {
    gain(name, width);
    if (biases_) bias(name, width);
  }
  void gain(const std::string& name, uint64_t width) { vector(name + ".weight", width, 1); }
  void bias(const std::string& name, uint64_t width) { vector(name + ".bias", width, 0); }
  ParameterLayout done() && { return std::move(layout_); }

 private:
  void vector(const std::string& name, uint64_t size, double value) {
    layout_.parameters.push_back({.slice = layout_.arena.add(name, kDType<Wide<T>>, {size}), .init_value = value});
  }

  bool biases_;
  ParameterLayout layout_;
};

}  // namespace

template <typename T>
ParameterLayout parameter_layout(const ModelConfig& config) {
  const bool gpt2 = config.kind == ModelKind::kGpt2;
  const double residual_std = kInitStd / std::sqrt(2.0 * config.layers);
  LayoutBuilder<T> build(gpt2);
  build.matrix("embed", config.vocab, config.width, kInitStd);
  if (gpt2) build.matrix("position", config.context, config.width, kInitStd);
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    build.norm(prefix + "norm1", config.width);
    build.linear(prefix + "attn.qkv", config.qkv_width(), config.width, kInitStd);
    if (config.qkv_bias) build.bias(prefix + "attn.qkv", config.qkv_width());
    if (config.qk_norm) {
      build.gain(prefix + "attn.qnorm", config.head_width());
      build.gain(prefix + "attn.knorm", config.head_width());
    }
    build.linear(prefix + "attn.out", config.width, config.attention_width(), residual_std);
    build.norm(prefix + "norm2", config.width);
    build.linear(prefix + "mlp.up", gpt2 ? config.mlp : 2 * config.mlp, config.width, kInitStd);
    build.linear(prefix + "mlp.down", config.width, config.mlp, residual_std);
  }
  build.norm("norm", config.width);
  if (!config.tie_embeddings) build.matrix("head", config.vocab, config.width, kInitStd);
  return std::move(build).done();
}

template <typename T>
Result<ModelState<T>> ModelState<T>::create(const ModelConfig& config, Device& device) {
  PITCREW_TRY(config.validate());
  ModelState state;
  state.layout_ = parameter_layout<T>(config);
  PITCREW_ASSIGN(state.params_, Arena::create(device, "parameters", state.layout_.arena));
  PITCREW_ASSIGN(state.m_, Arena::create(device, "first moments", state.layout_.arena));
  PITCREW_ASSIGN(state.v_, Arena::create(device, "second moments", state.layout_.arena));
  if constexpr (!kOwnMaster) {
    PITCREW_ASSIGN(state.weights_, device.allocate("weights", state.flat_elements() * sizeof(T)));
  }
  return state;
}

template <typename T>
void ModelState<T>::init(Kernels<T>& kernels, Stream& stream, uint64_t seed) {
  std::vector<Wide<T>> host(flat_elements());
  for (const Parameter& parameter : layout_.parameters) {
    const Slice& slice = layout_.arena[parameter.slice];
    Wide<T>* values = host.data() + layout_.template element<T>(slice);
    const TensorRandom random(seed, slice.name);
    for (uint64_t i = 0; i < slice.elements; ++i) {
      values[i] =
          static_cast<Wide<T>>(parameter.init_std == 0 ? parameter.init_value : random.normal(i) * parameter.init_std);
    }
  }
  stream.copy(params(), host.data(), host.size() * sizeof(Wide<T>));
  stream.zero(m(), m_.bytes());
  stream.zero(v(), v_.bytes());
  publish(kernels, stream);
  stream.synchronize();
}

template <typename T>
void ModelState<T>::publish(Kernels<T>& kernels, Stream& stream) const {
  if constexpr (!kOwnMaster) kernels.enqueue(stream, Cast<T>{flat_elements(), params(), own_weights()});
}

template <typename T>
std::vector<StateTensor> ModelState<T>::state_tensors() const {
  std::vector<StateTensor> tensors;
  const auto list = [&](const Arena& arena, const char* suffix) {
    for (const Slice& slice : arena.layout().slices()) {
      tensors.push_back({slice.name + suffix, slice.dtype, slice.shape, arena.data() + slice.offset});
    }
  };
  list(params_, "");
  list(m_, ".m");
  list(v_, ".v");
  return tensors;
}

template <typename T>
void ModelState<T>::adamw(Kernels<T>& kernels, Stream& stream, const Wide<T>* gradients,
                          const GradientSummary* gradient, const AdamWSettings& settings, uint64_t step) const {
  const auto& parameters = layout_.parameters;
  const auto offset_of = [&](size_t i) {
    return i == parameters.size() ? flat_elements() : layout_.template element<T>(layout_.arena[parameters[i].slice]);
  };
  // One operation per run of neighbours that are treated alike; the zeros between them stay zeros.
  for (size_t first = 0, last; first < parameters.size(); first = last) {
    for (last = first + 1; last < parameters.size() && parameters[last].decay == parameters[first].decay;) ++last;
    const uint64_t begin = offset_of(first);
    kernels.enqueue(stream, AdamW<T>{.elements = offset_of(last) - begin,
                                     .params = params() + begin,
                                     .m = m() + begin,
                                     .v = v() + begin,
                                     .gradients = gradients + begin,
                                     .weights = kOwnMaster ? nullptr : own_weights() + begin,
                                     .gradient = gradient,
                                     .learning_rate = settings.learning_rate,
                                     .beta1 = settings.beta1,
                                     .beta2 = settings.beta2,
                                     .epsilon = settings.epsilon,
                                     .weight_decay = parameters[first].decay ? settings.weight_decay : 0,
                                     .step = step});
  }
}

template ParameterLayout parameter_layout<float>(const ModelConfig&);
template ParameterLayout parameter_layout<double>(const ModelConfig&);
template ParameterLayout parameter_layout<BF16>(const ModelConfig&);
template class ModelState<float>;
template class ModelState<double>;
template class ModelState<BF16>;

}  // namespace pitcrew::trainer
