#include "trainer/train/lane_engine.hpp"

#include <algorithm>

#include "lib/base/digest.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/parallel/comm_tensor_group.hpp"
#include "trainer/train/device_pieces.hpp"
#include "trainer/train/sharded_engine.hpp"
#include "trainer/train/state_reader.hpp"

namespace pitcrew::trainer {

namespace {

template <typename T>
class EngineOf final : public LaneEngine {
 public:
  EngineOf(EngineSettings settings, std::unique_ptr<Device> device, std::unique_ptr<Kernels<T>> kernels,
           ProductPlans* plans)
      : settings_(std::move(settings)),
        device_(std::move(device)),
        kernels_(std::move(kernels)),
        plans_(plans),
        stream_(device_->create_stream("compute")),
        group_(settings_.tensor == nullptr ? nullptr : create_tensor_group(*settings_.tensor, *device_)),
        place_(group_ == nullptr ? TensorPlace{} : group_->place()),
        shape_{settings_.plan.micro(), settings_.tokens},
        range_(settings_.plan.range(settings_.rank)),
        gradients_(gradient_buffers(settings_.plan, settings_.rank)) {}
  // Nothing may be under way on the buffers when they go.
  ~EngineOf() override { stream_->synchronize(); }

  Status allocate();

  Device& device() override { return *device_; }
  Stream& stream() override { return *stream_; }
  void init(uint64_t seed) override { state_.init(*kernels_, *stream_, seed); }
  std::vector<StateTensor> state_tensors() const override { return state_.state_tensors(); }
  void publish() override {
    state_.publish(*kernels_, *stream_);
    stream_->synchronize();
  }
  void set_parameters(std::span<const float> params) override;
  bool collective() const override { return group_ != nullptr; }
  StateKernels state_kernels() override {
    if (device_->host_memory()) return {};
    return {[this](Stream& stream, const DigestList& op) { kernels_->enqueue(stream, op); },
            [this](Stream& stream, const SplitMasters& op) { kernels_->enqueue(stream, op); },
            [this](Stream& stream, const JoinMasters& op) { kernels_->enqueue(stream, op); }};
  }
  bool announces_writes() const override { return true; }
  ProductPlans* plans() override { return plans_; }
  Result<std::vector<double>> compute(std::span<const int32_t> tokens) override;
  std::unique_ptr<PieceMemory> create_pieces() override {
    return std::make_unique<DevicePieces<T>>(*device_, *kernels_, *stream_);
  }
  Status reduce(GradientReducer& reducer) override;
  void update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
              const std::function<void()>& before_update) override;
  GradientSummary updated() override;
  uint64_t own_digest() override;
  Result<double> own_square_sum() override;
  Result<std::vector<double>> lane_square_sums(std::span<const int32_t> tokens) override;
  std::vector<uint64_t> state_digests() override { return reader_->digests(state_tensors()); }
  double state_square_sum(size_t tensor) override { return reader_->square_sum(state_tensors()[tensor]); }
  Result<double> evaluate(std::span<const int32_t> tokens) override;

 private:
  // What a step tells the host.
  struct Told {
    GradientSummary summary;
    double loss;
  };
  void compute_lane(uint32_t lane, uint32_t buffer);
  void mark();
  void find_counted();
  // What the tensor group says of the work that is done.
  Status group_status() const { return group_ == nullptr ? Status() : group_->status(); }
  double square_sum(const Wide<T>* values, size_t elements);
  size_t lane_tokens() const { return shape_.sequences * (shape_.tokens + size_t{1}); }
  Digest digest_of(uint32_t buffer) const {
    return {.data = gradients_[buffer].data(),
            .bytes = state_.flat_elements() * sizeof(Wide<T>),
            .digests = digests_.template as<uint64_t>()};
  }

  const EngineSettings settings_;
  const std::unique_ptr<Device> device_;
  const std::unique_ptr<Kernels<T>> kernels_;
  ProductPlans* const plans_;
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<TensorGroup> group_;  // null: one rank has the whole width
  const TensorPlace place_;
  const LaneShape shape_;
  const LaneRange range_;
  std::unique_ptr<Model<T>> model_;
  ModelState<T> state_;
  Buffer tokens_;
  Buffer losses_, host_losses_;    // a double per lane
  Buffer square_sum_;              // a double; behind it those of all tensor ranks
  Buffer summary_, told_;          // a GradientSummary; a Told
  Buffer digests_, host_digests_;  // of the chunks of one gradient buffer
  std::unique_ptr<StateReader<T>> reader_;
  std::vector<Arena> gradients_;
  // What of the gradient the norm counts here: of what all tensor ranks hold only the first's.
  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
  };
  std::vector<Run> counted_;
  uint64_t queued_ = 0;
  std::shared_ptr<const Event> updated_;  // the last update's summary is in told_
  std::vector<Buffer> host_sums_;         // where the device's memory isn't the host's and there are peers
  std::vector<uint32_t> sums_;  // which gradient buffers hold the sums of this rank's subtrees, from left to right
};

template <typename T>
Status EngineOf<T>::allocate() {
  PITCREW_ASSIGN(model_,
                 Model<T>::create(settings_.model, shape_, *device_, *kernels_, settings_.recompute, group_.get()));
  PITCREW_ASSIGN(state_, ModelState<T>::create(settings_.model, *device_, settings_.masters, place_));
  find_counted();
  const size_t lanes = std::max(1u, range_.count());
  PITCREW_ASSIGN(tokens_, device_->allocate("tokens", lanes * lane_tokens() * sizeof(int32_t)));
  PITCREW_ASSIGN(losses_, device_->allocate("losses", lanes * sizeof(double)));
  PITCREW_ASSIGN(host_losses_, device_->allocate_host("losses", lanes * sizeof(double)));
  PITCREW_ASSIGN(square_sum_, device_->allocate("square sum", (1 + place_.size) * sizeof(double)));
  PITCREW_ASSIGN(summary_, device_->allocate("gradient summary", sizeof(GradientSummary)));
  PITCREW_ASSIGN(told_, device_->allocate_host("gradient summary", sizeof(Told)));
  for (Arena& gradients : gradients_) {
    PITCREW_ASSIGN(gradients, state_.create_gradients(*device_, "gradients"));
  }
  PITCREW_ASSIGN(reader_, StateReader<T>::create(state_tensors(), *device_, *kernels_, *stream_));
  const size_t digests = digest_of(0).count() * sizeof(uint64_t);
  PITCREW_ASSIGN(digests_, device_->allocate("digests", digests));
  PITCREW_ASSIGN(host_digests_, device_->allocate_host("digests", digests));
  return {};
}

// `params` is laid out as without tensor ranks.
template <typename T>
void EngineOf<T>::set_parameters(std::span<const float> params) {
  const ParameterLayout whole = parameter_layout<float>(settings_.model);
  PITCREW_INVARIANT(params.size() == whole.flat_elements<float>(), "a value for every element of the layout");
  if constexpr (std::is_same_v<Wide<T>, float>) {
    if (group_ == nullptr) return state_.set_params(*kernels_, *stream_, params.data());
    std::vector<float> held(state_.flat_elements());
    for (size_t i = 0; i < whole.parameters.size(); ++i) {
      const Parameter& parameter = state_.layout().parameters[i];
      const float* from = params.data() + whole.element<float>(whole.arena[whole.parameters[i].slice]);
      float* to = held.data() + state_.layout().template element<T>(state_.layout().arena[parameter.slice]);
      for_each_run(parameter.shape, parameter.cut, 0, held_elements(parameter.shape, parameter.cut),
                   [&](const CutRun& run) { std::copy_n(from + run.whole, run.count, to + run.held); });
    }
    state_.set_params(*kernels_, *stream_, held.data());
  }
}

template <typename T>
void EngineOf<T>::find_counted() {
  if (group_ == nullptr) {
    counted_ = {{0, state_.flat_elements()}};
    return;
  }
  for (const Parameter& parameter : state_.layout().parameters) {
    if (parameter.replicated() && place_.rank > 0) continue;
    const Slice& slice = state_.layout().arena[parameter.slice];
    const uint64_t first = state_.layout().template element<T>(slice);
    if (counted_.empty() || counted_.back().first + counted_.back().count != first) counted_.push_back({first, 0});
    counted_.back().count += (slice.elements + 15) / 16 * 16;  // with its padding, which is zero
  }
}

template <typename T>
void EngineOf<T>::mark() {
  ++queued_;
  if (settings_.queued) settings_.queued(queued_);
  if (settings_.reached) stream_->call([this, number = queued_] { settings_.reached(number); });
}

template <typename T>
void EngineOf<T>::compute_lane(uint32_t lane, uint32_t buffer) {
  auto* gradient = gradients_[buffer].template as<Wide<T>>();
  model_->forward_backward(*stream_, state_.weights(), tokens_.as<int32_t>() + lane * lane_tokens(), shape_, gradient,
                           Gradients::kOverwrite, 1.0, losses_.as<double>() + lane);
  if (settings_.after_lane && device_->host_memory())
    stream_->call([this, lane, gradient] { settings_.after_lane(lane, {gradient, state_.flat_elements()}); });
  mark();
}

template <typename T>
Result<std::vector<double>> EngineOf<T>::compute(std::span<const int32_t> tokens) {
  PITCREW_INVARIANT(tokens.size() == range_.count() * lane_tokens(), "tokens for every lane of the rank");
  std::vector<uint32_t> free;
  for (uint32_t i = static_cast<uint32_t>(gradients_.size()); i-- > 0;) free.push_back(i);
  TreeFold fold(settings_.plan.lanes());
  if (!tokens.empty()) stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  for (uint32_t i = 0; i < range_.count(); ++i) {
    const uint32_t buffer = free.back();
    free.pop_back();
    compute_lane(i, buffer);
    fold.push({0, range_.first + i}, buffer, [&](uint32_t into, uint32_t from) {
      kernels_->enqueue(*stream_, Add<Wide<T>>{state_.flat_elements(), gradients_[into].template as<Wide<T>>(),
                                               gradients_[from].template as<Wide<T>>()});
      free.push_back(from);
    });
  }
  stream_->copy(host_losses_.data(), losses_.data(), range_.count() * sizeof(double));
  stream_->synchronize();
  PITCREW_TRY(group_status());
  sums_.clear();
  for (const TreeFold::Part& part : fold.parts()) sums_.push_back(part.value);
  return std::vector<double>(host_losses_.as<double>(), host_losses_.as<double>() + range_.count());
}

template <typename T>
Status EngineOf<T>::reduce(GradientReducer& reducer) {
  // The sum comes to lie in the first of them, where update() looks for it.
  const size_t count = sums_.size();
  if (sums_.empty()) sums_.push_back(0);
  Arena& result = gradients_[sums_[0]];
  std::vector<const float*> mine;
  if (device_->host_memory() || settings_.plan.ranks() == 1 || reducer.device_memory()) {
    for (size_t i = 0; i < count; ++i) mine.push_back(gradients_[sums_[i]].template as<float>());
    return reducer.reduce(mine, std::span(result.template as<float>(), state_.flat_elements()));
  }
  const size_t bytes = state_.flat_elements() * sizeof(float);
  while (host_sums_.size() < std::max<size_t>(1, count)) {
    PITCREW_ASSIGN(Buffer host, device_->allocate_host("gradients under way to peers", bytes));
    host_sums_.push_back(std::move(host));
  }
  for (size_t i = 0; i < count; ++i) {
    stream_->copy(host_sums_[i].data(), gradients_[sums_[i]].data(), bytes);
    mine.push_back(host_sums_[i].template as<float>());
  }
  stream_->synchronize();
  PITCREW_TRY(reducer.reduce(mine, std::span(host_sums_[0].template as<float>(), state_.flat_elements())));
  stream_->copy(result.data(), host_sums_[0].data(), bytes);
  return {};
}

template <typename T>
void EngineOf<T>::update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
                         const std::function<void()>& before_update) {
  const auto* gradient = gradients_[sums_[0]].template as<Wide<T>>();
  auto* summary = summary_.as<GradientSummary>();
  auto* square_sums = square_sum_.as<double>();
  for (const Run& run : counted_) {
    kernels_->enqueue(*stream_, SquareSum<Wide<T>>{run.count, gradient + run.first, square_sums, &run != &counted_[0]});
  }
  if (group_ != nullptr) {
    group_->all_gather(*stream_, square_sums, square_sums + 1, sizeof(double));
    ++square_sums;
  }
  kernels_->enqueue(*stream_, Summarize{square_sums, tokens, clip, summary, norm_limit, place_.size});
  before_update();
  state_.adamw(*kernels_, *stream_, gradient, summary, optimizer, step, settings_.before_write);
  stream_->copy(told_.data(), summary, sizeof(GradientSummary));
  mark();
  updated_ = stream_->record();
}

template <typename T>
GradientSummary EngineOf<T>::updated() {
  PITCREW_INVARIANT(updated_ != nullptr, "something was updated");
  updated_->wait();
  return told_.as<Told>()->summary;
}

template <typename T>
uint64_t EngineOf<T>::own_digest() {
  uint64_t digest = 0;
  for (const uint32_t sum : sums_) {
    const Digest op = digest_of(sum);
    const size_t bytes = op.count() * sizeof(uint64_t);
    kernels_->enqueue(*stream_, op);
    stream_->copy(host_digests_.data(), digests_.data(), bytes);
    stream_->synchronize();
    digest = digest * 31 + xxh3(host_digests_.data(), bytes);
  }
  return digest;
}

template <typename T>
double EngineOf<T>::square_sum(const Wide<T>* values, size_t elements) {
  kernels_->enqueue(*stream_, SquareSum<Wide<T>>{elements, values, square_sum_.as<double>()});
  stream_->copy(&told_.as<Told>()->loss, square_sum_.data(), sizeof(double));
  stream_->synchronize();
  return told_.as<Told>()->loss;
}

template <typename T>
Result<double> EngineOf<T>::own_square_sum() {
  double sum = 0;
  for (const uint32_t buffer : sums_)
    sum += square_sum(gradients_[buffer].template as<Wide<T>>(), state_.flat_elements());
  return sum;
}

template <typename T>
Result<std::vector<double>> EngineOf<T>::lane_square_sums(std::span<const int32_t> tokens) {
  PITCREW_INVARIANT(tokens.size() == range_.count() * lane_tokens(), "tokens for every lane of the rank");
  std::vector<double> sums(range_.count());
  if (!tokens.empty()) stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  for (uint32_t lane = 0; lane < range_.count(); ++lane) {
    compute_lane(lane, 0);
    sums[lane] = square_sum(gradients_[0].template as<Wide<T>>(), state_.flat_elements());
  }
  sums_.clear();
  PITCREW_TRY(group_status());
  return sums;
}

template <typename T>
Result<double> EngineOf<T>::evaluate(std::span<const int32_t> tokens) {
  if (tokens.empty()) return 0.0;
  stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  model_->forward(*stream_, state_.weights(), tokens_.as<int32_t>(), shape_, losses_.as<double>());
  stream_->copy(&told_.as<Told>()->loss, losses_.data(), sizeof(double));
  stream_->synchronize();
  PITCREW_TRY(group_status());
  return told_.as<Told>()->loss;
}

}  // namespace

uint64_t LaneEngine::gradient_buffers(const LanePlan& plan, uint32_t rank) {
  return std::max(1u, peak_values(plan.range(rank), plan.lanes()));
}

template <typename T>
Result<std::unique_ptr<LaneEngine>> LaneEngine::create(EngineSettings settings, std::unique_ptr<Device> device,
                                                       std::unique_ptr<Kernels<T>> kernels, ProductPlans* plans) {
  if (settings.plan.shards() > 1)
    return create_sharded_engine<T>(std::move(settings), std::move(device), std::move(kernels), plans);
  auto engine = std::make_unique<EngineOf<T>>(std::move(settings), std::move(device), std::move(kernels), plans);
  PITCREW_TRY(engine->allocate());
  return std::unique_ptr<LaneEngine>(std::move(engine));
}

Result<std::unique_ptr<LaneEngine>> LaneEngine::create_on_cpu(EngineSettings settings, CpuDeviceOptions options) {
  auto device = std::make_unique<CpuDevice>(std::move(options));
  auto kernels = create_cpu_kernels<float>(*device);
  return create<float>(std::move(settings), std::move(device), std::move(kernels));
}

template Result<std::unique_ptr<LaneEngine>> LaneEngine::create(EngineSettings, std::unique_ptr<Device>,
                                                                std::unique_ptr<Kernels<float>>, ProductPlans*);
template Result<std::unique_ptr<LaneEngine>> LaneEngine::create(EngineSettings, std::unique_ptr<Device>,
                                                                std::unique_ptr<Kernels<BF16>>, ProductPlans*);

}  // namespace pitcrew::trainer
