#include "trainer/train/sharded_state.hpp"

#include <algorithm>

#include "trainer/tensor/philox.hpp"

namespace pitcrew::trainer {

template <typename T>
Result<ShardedState<T>> ShardedState<T>::create(const ModelConfig& config, ShardLayout shards, uint32_t shard,
                                                Device& device, Masters masters, TensorPlace place) {
  ShardedState state;
  state.layout_ = parameter_layout<T>(config, place);
  state.shards_ = std::move(shards);
  state.shard_ = shard;
  const uint64_t bytes = state.elements() * sizeof(Wide<T>);
  if (!kOwnMaster && masters == Masters::kRemainder) {
    PITCREW_ASSIGN(state.remainders_,
                   device.allocate("a shard of the remainders", state.elements() * sizeof(uint16_t)));
  } else {
    PITCREW_ASSIGN(state.params_, device.allocate("a shard of the parameters", bytes));
  }
  PITCREW_ASSIGN(state.m_, device.allocate("a shard of the first moments", bytes));
  PITCREW_ASSIGN(state.v_, device.allocate("a shard of the second moments", bytes));
  if constexpr (!kOwnMaster) {
    PITCREW_ASSIGN(state.weights_, device.allocate("a shard of the weights", state.elements() * sizeof(T)));
  }
  state.find_held();
  return state;
}

template <typename T>
void ShardedState<T>::find_held() {
  const auto& parameters = layout_.parameters;
  uint32_t unit = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const uint64_t begin = layout_.template element<T>(layout_.arena[parameters[i].slice]);
    const uint64_t elements = held_elements(parameters[i].shape, parameters[i].cut);
    const uint64_t end = i + 1 < parameters.size() ? layout_.template element<T>(layout_.arena[parameters[i + 1].slice])
                                                   : shards_.flat_elements();
    while (shards_.unit(unit).end() <= begin) ++unit;
    const ShardLayout::Run own = shards_.own(unit, shard_);
    const uint64_t first = std::max(begin, own.first), last = std::min(end, own.end());
    Held& held = held_.emplace_back(Held{.parameter = i});
    if (first >= last) continue;
    held.first = std::min(first - begin, elements);
    held.count = std::min(last - begin, elements) - held.first;
    held.padded = last - first;
    held.offset = shards_.offset(unit) + first - own.first;
  }
}

template <typename T>
void ShardedState<T>::init(Kernels<T>& kernels, Stream& stream, uint64_t seed) {
  std::vector<Wide<T>> host(elements());
  for (const Held& held : held_) {
    const Parameter& parameter = layout_.parameters[held.parameter];
    const TensorRandom random(seed, layout_.arena[parameter.slice].name);
    Wide<T>* values = host.data() + held.offset;
    for_each_run(parameter.shape, parameter.cut, held.first, held.count, [&](const CutRun& run) {
      for (uint64_t i = 0; i < run.count; ++i) {
        values[run.held - held.first + i] = static_cast<Wide<T>>(
            parameter.init_std == 0 ? parameter.init_value : random.normal(run.whole + i) * parameter.init_std);
      }
    });
  }
  stream.zero(m_.data(), m_.bytes());
  stream.zero(v_.data(), v_.bytes());
  set_slice(kernels, stream, host);
}

template <typename T>
void ShardedState<T>::set_slice(Kernels<T>& kernels, Stream& stream, const std::vector<Wide<T>>& slice) {
  if constexpr (!kOwnMaster) {
    if (remainders() != nullptr) {
      std::vector<BF16> weights(slice.size());
      std::vector<uint16_t> lower(slice.size());
      for (size_t i = 0; i < slice.size(); ++i) {
        const MasterHalves halves = split_master(slice[i]);
        weights[i] = halves.weight;
        lower[i] = halves.remainder;
      }
      stream.copy(weights_.data(), weights.data(), weights_.bytes());
      stream.copy(remainders_.data(), lower.data(), remainders_.bytes());
      return stream.synchronize();
    }
  }
  stream.copy(params(), slice.data(), slice.size() * sizeof(Wide<T>));
  publish(kernels, stream);
  stream.synchronize();
}

template <typename T>
void ShardedState<T>::set_parameters(Kernels<T>& kernels, Stream& stream, const Wide<T>* flat) {
  std::vector<Wide<T>> slice(elements());
  for (uint32_t unit = 0; unit < shards_.units(); ++unit) {
    const ShardLayout::Run own = shards_.own(unit, shard_);
    std::copy_n(flat + own.first, own.count, slice.data() + shards_.offset(unit));
  }
  set_slice(kernels, stream, slice);
}

template <typename T>
const T* ShardedState<T>::weights() const {
  if constexpr (kOwnMaster) return params();
  return weights_.template as<T>();
}

template <typename T>
void ShardedState<T>::publish(Kernels<T>& kernels, Stream& stream) const {
  if constexpr (!kOwnMaster) {
    if (params() != nullptr) kernels.enqueue(stream, Cast<T>{elements(), params(), weights_.template as<T>()});
  }
}

template <typename T>
std::vector<StateTensor> ShardedState<T>::state_tensors() const {
  std::vector<StateTensor> tensors;
  const auto list = [&](const char* suffix, const Buffer& buffer, size_t width) {
    uint32_t bucket = 0;
    for (const Held& held : held_) {
      const Parameter& parameter = layout_.parameters[held.parameter];
      const Slice& slice = layout_.arena[parameter.slice];
      StateTensor tensor{slice.name + suffix, slice.dtype, parameter.shape, buffer.data() + held.offset * width};
      tensor.cut = parameter.cut;
      tensor.first = held.first;
      tensor.count = held.count;
      tensor.bucket = bucket++;
      if (&buffer == &weights_) tensor.remainders = reinterpret_cast<std::byte*>(remainders() + held.offset);
      tensors.push_back(std::move(tensor));
    }
  };
  if (remainders() == nullptr) {
    list("", params_, sizeof(Wide<T>));
  } else {
    list("", weights_, sizeof(T));
  }
  list(".m", m_, sizeof(Wide<T>));
  list(".v", v_, sizeof(Wide<T>));
  return tensors;
}

template <typename T>
void ShardedState<T>::adamw(Kernels<T>& kernels, Stream& stream, const Wide<T>* gradients,
                            const GradientSummary* gradient, const AdamWSettings& settings, uint64_t step,
                            const typename ModelState<T>::BeforeWrite& before_write) const {
  const auto decays = [&](const Held& held) { return layout_.parameters[held.parameter].decay; };
  for (size_t i = 0, next; i < held_.size(); i = next) {
    // Neighbours that are treated alike are one operation.
    uint64_t count = held_[i].padded;
    for (next = i + 1; next < held_.size(); ++next) {
      const Held& held = held_[next];
      if (held.padded == 0) continue;
      if (decays(held) != decays(held_[i]) || held.offset != held_[i].offset + count) break;
      count += held.padded;
    }
    if (held_[i].padded == 0) {
      next = i + 1;
      continue;
    }
    for (size_t held = i; before_write && held < next; ++held) {
      for (size_t copy = 0; copy < 3; ++copy) before_write(held + copy * held_.size());  // itself, .m and .v
    }
    const uint64_t at = held_[i].offset;
    T* weights = nullptr;
    if constexpr (!kOwnMaster) weights = weights_.template as<T>() + at;
    kernels.enqueue(stream, AdamW<T>{.elements = count,
                                     .params = params() == nullptr ? nullptr : params() + at,
                                     .m = m_.template as<Wide<T>>() + at,
                                     .v = v_.template as<Wide<T>>() + at,
                                     .gradients = gradients + at,
                                     .weights = weights,
                                     .gradient = gradient,
                                     .learning_rate = settings.learning_rate,
                                     .beta1 = settings.beta1,
                                     .beta2 = settings.beta2,
                                     .epsilon = settings.epsilon,
                                     .weight_decay = decays(held_[i]) ? settings.weight_decay : 0,
                                     .step = step,
                                     .remainders = remainders() == nullptr ? nullptr : remainders() + at});
  }
}

template class ShardedState<float>;
template class ShardedState<BF16>;

}  // namespace pitcrew::trainer
