#include "trainer/model/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include "trainer/model/tensor_part.hpp"
#include "trainer/tensor/philox.hpp"

namespace pitcrew::trainer {

namespace {

constexpr double kInitStd = 0.02;  // GPT-2; projections into the residual stream are divided by √(2 layers)

template <typename T>
class LayoutBuilder {
 public:
  LayoutBuilder(bool biases, TensorPlace place) : biases_(biases), place_(place) {}

  // Rows of `groups`, each dealt to the tensor ranks.
  void rows(const std::string& name, const std::vector<uint64_t>& groups, uint64_t in, double std) {
    add(name + ".weight", {sum(groups), in}, {.decay = true, .init_std = std}, 0, groups);
  }
  // A layer whose rows, and biases, are dealt.
  void linear(const std::string& name, const std::vector<uint64_t>& groups, uint64_t in, double std, bool biased) {
    rows(name, groups, in, std);
    if (biased) add(name + ".bias", {sum(groups)}, {}, 0, groups);
  }
  // A layer whose columns are dealt: its results are added up, and then its bias, which all have.
  void columns(const std::string& name, uint64_t out, uint64_t in, double std) {
    add(name + ".weight", {out, in}, {.decay = true, .init_std = std}, 1, {in});
    if (biases_) add(name + ".bias", {out}, {});
  }
  void norm(const std::string& name, uint64_t width) {
    gain(name, width);
    if (biases_) add(name + ".bias", {width}, {});
  }
  void gain(const std::string& name, uint64_t width) { add(name + ".weight", {width}, {.init_value = 1}); }
  ParameterLayout done() && { return std::move(layout_); }

 private:
  static uint64_t sum(const std::vector<uint64_t>& groups) {
    return std::accumulate(groups.begin(), groups.end(), uint64_t{0});
  }
  void add(const std::string& name, const std::vector<uint64_t>& shape, Parameter parameter, uint32_t axis = 0,
           const std::vector<uint64_t>& groups = {}) {
    std::vector<uint64_t> held = shape;
    if (!groups.empty() && place_.size > 1) {
      parameter.cut = {axis, groups, place_.size, place_.rank};
      held[axis] = 0;
      for (const uint64_t extent : groups) held[axis] += held_rows(extent, place_).count;
    }
    parameter.shape = shape;
    parameter.slice = layout_.arena.add(name, kDType<Wide<T>>, held);
    layout_.parameters.push_back(std::move(parameter));
  }

  const bool biases_;
  const TensorPlace place_;
  ParameterLayout layout_;
};

// `work` over parts of [0, count), on as many threads as there are where it is worth it.
void in_parallel(uint64_t count, const std::function<void(uint64_t first, uint64_t last)>& work) {
  constexpr uint64_t kWorthIt = uint64_t{1} << 20;
  const uint64_t threads = std::clamp<uint64_t>(count / kWorthIt, 1, std::max(1u, std::thread::hardware_concurrency()));
  const uint64_t part = (count + threads - 1) / threads;
  std::vector<std::jthread> others;
  for (uint64_t i = 1; i < threads; ++i)
    others.emplace_back([&work, first = i * part, last = std::min(count, (i + 1) * part)] { work(first, last); });
  work(0, std::min(count, part));
}

}  // namespace

template <typename T>
ParameterLayout parameter_layout(const ModelConfig& config, TensorPlace place) {
  const bool gpt2 = config.kind == ModelKind::kGpt2;
  const double residual_std = kInitStd / std::sqrt(2.0 * config.layers);
  const uint64_t queries = config.attention_width(), keys = uint64_t{config.kv_heads} * config.head_width();
  const uint64_t mlp = config.mlp;
  LayoutBuilder<T> build(gpt2, place);
  build.rows("embed", {config.vocab}, config.width, kInitStd);
  if (gpt2) build.rows("position", {config.context}, config.width, kInitStd);
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    build.norm(prefix + "norm1", config.width);
    build.linear(prefix + "attn.qkv", {queries, keys, keys}, config.width, kInitStd, gpt2 || config.qkv_bias);
    if (config.qk_norm) {
      build.gain(prefix + "attn.qnorm", config.head_width());
      build.gain(prefix + "attn.knorm", config.head_width());
    }
    build.columns(prefix + "attn.out", config.width, queries, residual_std);
    build.norm(prefix + "norm2", config.width);
    build.linear(prefix + "mlp.up", gpt2 ? std::vector{mlp} : std::vector{mlp, mlp}, config.width, kInitStd, gpt2);
    build.columns(prefix + "mlp.down", config.width, mlp, residual_std);
  }
  build.norm("norm", config.width);
  if (!config.tie_embeddings) build.rows("head", {config.vocab}, config.width, kInitStd);
  return std::move(build).done();
}

template <typename T>
std::vector<ShardLayout::Run> counted_runs(const ParameterLayout& layout, TensorPlace place) {
  if (place.size == 1) return {{0, layout.template flat_elements<T>()}};
  std::vector<ShardLayout::Run> runs;
  for (const Parameter& parameter : layout.parameters) {
    if (parameter.replicated() && place.rank > 0) continue;
    const Slice& slice = layout.arena[parameter.slice];
    const uint64_t first = layout.template element<T>(slice);
    if (runs.empty() || runs.back().end() != first) runs.push_back({first, 0});
    runs.back().count += (slice.elements + 15) / 16 * 16;  // with its padding, which is zero
  }
  return runs;
}

template <typename T>
Result<ModelState<T>> ModelState<T>::create(const ModelConfig& config, Device& device, Masters masters,
                                            TensorPlace place) {
  PITCREW_TRY(config.validate());
  PITCREW_TRY(tensor_part(config, place.size));
  ModelState state;
  state.layout_ = parameter_layout<T>(config, place);
  const bool halves = !kOwnMaster && masters == Masters::kRemainder;
  if (halves) {
    PITCREW_ASSIGN(state.remainders_, device.allocate("remainders", state.flat_elements() * sizeof(uint16_t)));
  } else {
    PITCREW_ASSIGN(state.params_, Arena::create(device, "parameters", state.layout_.arena));
  }
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
    for_each_run(
        parameter.shape, parameter.cut, 0, held_elements(parameter.shape, parameter.cut), [&](const CutRun& run) {
          in_parallel(run.count, [&](uint64_t first, uint64_t last) {
            for (uint64_t i = first; i < last; ++i) {
              values[run.held + i] = static_cast<Wide<T>>(
                  parameter.init_std == 0 ? parameter.init_value : random.normal(run.whole + i) * parameter.init_std);
            }
          });
        });
  }
  stream.zero(m(), m_.bytes());
  stream.zero(v(), v_.bytes());
  set_params(kernels, stream, host.data());
}

template <typename T>
void ModelState<T>::set_params(Kernels<T>& kernels, Stream& stream, const Wide<T>* host) {
  if constexpr (std::is_same_v<T, BF16>) {
    if (remainders() != nullptr) {
      std::vector<BF16> weights(flat_elements());
      std::vector<uint16_t> lower(flat_elements());
      in_parallel(flat_elements(), [&](uint64_t first, uint64_t last) {
        for (uint64_t i = first; i < last; ++i) {
          const MasterHalves halves = split_master(host[i]);
          weights[i] = halves.weight;
          lower[i] = halves.remainder;
        }
      });
      stream.copy(weights_.data(), weights.data(), weights_.bytes());
      stream.copy(remainders_.data(), lower.data(), remainders_.bytes());
      return stream.synchronize();
    }
  }
  stream.copy(params(), host, flat_elements() * sizeof(Wide<T>));
  publish(kernels, stream);
  stream.synchronize();
}

template <typename T>
void ModelState<T>::publish(Kernels<T>& kernels, Stream& stream) const {
  if constexpr (!kOwnMaster) {
    if (params() != nullptr) kernels.enqueue(stream, Cast<T>{flat_elements(), params(), own_weights()});
  }
}

template <typename T>
std::vector<StateTensor> ModelState<T>::state_tensors() const {
  std::vector<StateTensor> tensors;
  const auto list = [&](const char* suffix, const auto& data_of) {
    uint32_t bucket = 0;
    for (const Parameter& parameter : layout_.parameters) {
      const Slice& slice = layout_.arena[parameter.slice];
      StateTensor tensor{slice.name + suffix, slice.dtype, parameter.shape};
      tensor.cut = parameter.cut;
      tensor.bucket = bucket++;
      data_of(slice, tensor);
      tensors.push_back(std::move(tensor));
    }
  };
  list("", [&](const Slice& slice, StateTensor& tensor) {
    if (remainders() == nullptr) {
      tensor.data = params_.data() + slice.offset;
    } else {
      tensor.data = reinterpret_cast<std::byte*>(own_weights() + layout_.template element<T>(slice));
      tensor.remainders = reinterpret_cast<std::byte*>(remainders() + layout_.template element<T>(slice));
    }
  });
  list(".m", [&](const Slice& slice, StateTensor& tensor) { tensor.data = m_.data() + slice.offset; });
  list(".v", [&](const Slice& slice, StateTensor& tensor) { tensor.data = v_.data() + slice.offset; });
  return tensors;
}

template <typename T>
void ModelState<T>::adamw(Kernels<T>& kernels, Stream& stream, const Wide<T>* gradients,
                          const GradientSummary* gradient, const AdamWSettings& settings, uint64_t step,
                          const BeforeWrite& before_write) const {
  const auto& parameters = layout_.parameters;
  const auto offset_of = [&](size_t i) {
    return i == parameters.size() ? flat_elements() : layout_.template element<T>(layout_.arena[parameters[i].slice]);
  };
  // One operation per run of neighbours that are treated alike; the zeros between them stay zeros.
  for (size_t first = 0, last; first < parameters.size(); first = last) {
    for (last = first + 1; last < parameters.size() && parameters[last].decay == parameters[first].decay;) ++last;
    for (size_t i = first; before_write && i < last; ++i) {
      for (size_t copy = 0; copy < 3; ++copy) before_write(i + copy * parameters.size());  // itself, .m and .v
    }
    const uint64_t begin = offset_of(first);
    kernels.enqueue(stream, AdamW<T>{.elements = offset_of(last) - begin,
                                     .params = params() == nullptr ? nullptr : params() + begin,
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
                                     .step = step,
                                     .remainders = remainders() == nullptr ? nullptr : remainders() + begin});
  }
}

template ParameterLayout parameter_layout<float>(const ModelConfig&, TensorPlace);
template ParameterLayout parameter_layout<double>(const ModelConfig&, TensorPlace);
template ParameterLayout parameter_layout<BF16>(const ModelConfig&, TensorPlace);
template std::vector<ShardLayout::Run> counted_runs<float>(const ParameterLayout&, TensorPlace);
template std::vector<ShardLayout::Run> counted_runs<BF16>(const ParameterLayout&, TensorPlace);
template class ModelState<float>;
template class ModelState<double>;
template class ModelState<BF16>;

}  // namespace pitcrew::trainer
