#include "trainer/train/engine_base.hpp"

#include <algorithm>

#include "trainer/parallel/comm_tensor_group.hpp"

namespace pitcrew::trainer {

template <typename T>
EngineBase<T>::EngineBase(EngineSettings settings, std::shared_ptr<Device> device, std::unique_ptr<Kernels<T>> kernels,
                          ProductPlans* plans)
    : settings_(std::move(settings)),
      device_(std::move(device)),
      kernels_(std::move(kernels)),
      stream_(device_->create_stream("compute")),
      group_(settings_.tensor == nullptr ? nullptr : create_tensor_group(*settings_.tensor, *device_)),
      place_(group_ == nullptr ? TensorPlace{} : group_->place()),
      shape_{settings_.plan.micro(), settings_.tokens},
      plans_(plans) {}

template <typename T>
Status EngineBase<T>::allocate_operands(uint32_t lanes) {
  lanes = std::max(1u, lanes);
  PITCREW_ASSIGN(model_,
                 Model<T>::create(settings_.model, shape_, *device_, *kernels_, settings_.recompute, group_.get()));
  PITCREW_ASSIGN(tokens_, device_->allocate("tokens", lanes * lane_tokens() * sizeof(int32_t)));
  PITCREW_ASSIGN(losses_, device_->allocate("losses", lanes * passes() * sizeof(double)));
  PITCREW_ASSIGN(host_losses_, device_->allocate_host("losses", lanes * passes() * sizeof(double)));
  PITCREW_ASSIGN(square_sum_, device_->allocate("square sum", (1 + place_.size) * sizeof(double)));
  PITCREW_ASSIGN(summary_, device_->allocate("gradient summary", sizeof(GradientSummary)));
  PITCREW_ASSIGN(told_, device_->allocate_host("gradient summary", sizeof(Told)));
  return {};
}

template <typename T>
Status EngineBase<T>::allocate_reader() {
  PITCREW_ASSIGN(reader_, StateReader<T>::create(state_tensors(), *device_, *kernels_, *stream_));
  return {};
}

template <typename T>
StateKernels EngineBase<T>::state_kernels() {
  if (device_->host_memory()) return {};
  return {[this](Stream& stream, const DigestList& op) { kernels_->enqueue(stream, op); },
          [this](Stream& stream, const SplitMasters& op) { kernels_->enqueue(stream, op); },
          [this](Stream& stream, const JoinMasters& op) { kernels_->enqueue(stream, op); }};
}

// `params` is laid out as without tensor ranks.
template <typename T>
void EngineBase<T>::set_parameters(std::span<const float> params) {
  const ParameterLayout whole = parameter_layout<float>(settings_.model);
  PITCREW_INVARIANT(params.size() == whole.flat_elements<float>(), "a value for every element of the layout");
  if (group_ == nullptr) return set_held_parameters(params.data());
  const ParameterLayout own = parameter_layout<T>(settings_.model, place_);
  std::vector<float> held(own.template flat_elements<T>());
  for (size_t i = 0; i < whole.parameters.size(); ++i) {
    const Parameter& parameter = own.parameters[i];
    const float* from = params.data() + whole.element<float>(whole.arena[whole.parameters[i].slice]);
    float* to = held.data() + own.template element<T>(own.arena[parameter.slice]);
    for_each_run(parameter.shape, parameter.cut, 0, held_elements(parameter.shape, parameter.cut),
                 [&](const CutRun& run) { std::copy_n(from + run.whole, run.count, to + run.held); });
  }
  set_held_parameters(held.data());
}

template <typename T>
void EngineBase<T>::mark() {
  ++queued_;
  if (settings_.queued) settings_.queued(queued_);
  if (settings_.reached) stream_->call([this, number = queued_] { settings_.reached(number); });
}

template <typename T>
void EngineBase<T>::take_tokens(std::span<const int32_t> tokens) {
  if (!tokens.empty()) stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
}

template <typename T>
void EngineBase<T>::fetch_losses(uint32_t lanes) {
  stream_->copy(host_losses_.data(), losses_.data(), lanes * passes() * sizeof(double));
}

template <typename T>
std::vector<double> EngineBase<T>::fetched_losses(uint32_t lanes) const {
  std::vector<double> losses(lanes);
  for (size_t i = 0; i < losses.size() * passes(); ++i) losses[i / passes()] += host_losses_.as<double>()[i];
  return losses;
}

template <typename T>
double EngineBase<T>::fetch(const double* value) {
  stream_->copy(&told_.as<Told>()->value, value, sizeof(double));
  stream_->synchronize();
  return told_.as<Told>()->value;
}

template <typename T>
Status EngineBase<T>::reduce_sums(GradientReducer& reducer, std::span<float* const> sums, float* result,
                                  uint64_t elements) {
  const uint64_t bytes = elements * sizeof(float);
  std::vector<const float*> mine(sums.begin(), sums.end());
  if (device_->host_memory() || settings_.plan.replicas() == 1 || reducer.device_memory())
    return reducer.reduce(mine, std::span(result, elements));
  while (host_sums_.size() < std::max<size_t>(1, sums.size())) {
    PITCREW_ASSIGN(Buffer host, device_->allocate_host("gradients under way to peers", bytes));
    host_sums_.push_back(std::move(host));
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    stream_->copy(host_sums_[i].data(), sums[i], bytes);
    mine[i] = host_sums_[i].template as<float>();
  }
  stream_->synchronize();
  PITCREW_TRY(reducer.reduce(mine, std::span(host_sums_[0].template as<float>(), elements)));
  stream_->copy(result, host_sums_[0].data(), bytes);
  return {};
}

template <typename T>
void EngineBase<T>::conclude(double tokens, double clip, double norm_limit, const std::function<void()>& before_update,
                             const std::function<void(const GradientSummary*)>& adamw) {
  auto* summary = summary_.as<GradientSummary>();
  double* square_sums = square_sum();
  if (group_ != nullptr) {
    group_->all_gather(*stream_, square_sums, square_sums + 1, sizeof(double));
    ++square_sums;
  }
  kernels_->enqueue(*stream_, Summarize{square_sums, tokens, clip, summary, norm_limit, place_.size});
  before_update();
  adamw(summary);
  stream_->copy(told_.data(), summary, sizeof(GradientSummary));
  mark();
  updated_ = stream_->record();
}

template <typename T>
GradientSummary EngineBase<T>::updated() {
  PITCREW_INVARIANT(updated_ != nullptr, "something was updated");
  updated_->wait();
  return told_.as<Told>()->summary;
}

template class EngineBase<float>;
template class EngineBase<BF16>;

}  // namespace pitcrew::trainer
