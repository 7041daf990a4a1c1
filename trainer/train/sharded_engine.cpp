#include "trainer/train/sharded_engine.hpp"

#include <algorithm>

#include "lib/base/digest.hpp"
#include "trainer/parallel/square_sum_plan.hpp"
#include "trainer/train/device_pieces.hpp"
#include "trainer/train/sharded_norm.hpp"
#include "trainer/train/sharded_state.hpp"
#include "trainer/train/state_reader.hpp"
#include "trainer/train/unit_store.hpp"

namespace pitcrew::trainer {

namespace {

uint64_t digests_of(uint64_t bytes) { return Digest{.bytes = bytes}.count(); }

template <typename T>
class ShardedEngine final : public LaneEngine {
 public:
  ShardedEngine(EngineSettings settings, std::unique_ptr<Device> device, std::unique_ptr<Kernels<T>> kernels,
                ProductPlans* plans)
      : settings_(std::move(settings)),
        device_(std::move(device)),
        kernels_(std::move(kernels)),
        plans_(plans),
        stream_(device_->create_stream("compute")),
        shape_{settings_.plan.micro(), settings_.tokens},
        lanes_(settings_.plan.of(settings_.rank)),
        shard_(settings_.rank % settings_.plan.shards()),
        sums_(settings_.plan.range(settings_.rank / settings_.plan.shards()), settings_.plan.lanes(),
              settings_.plan.shards()) {}
  // Nothing may be under way on the buffers when they go.
  ~ShardedEngine() override {
    units_.reset();
    stream_->synchronize();
  }

  Status allocate();

  Device& device() override { return *device_; }
  Stream& stream() override { return *stream_; }
  void init(uint64_t seed) override {
    state_.init(*kernels_, *stream_, seed);
    units_->changed(nullptr);
  }
  std::vector<StateTensor> state_tensors() const override { return state_.state_tensors(); }
  void publish() override {
    state_.publish(*kernels_, *stream_);
    stream_->synchronize();
    units_->changed(nullptr);
  }
  void set_parameters(std::span<const float> params) override {
    state_.set_parameters(*kernels_, *stream_, params.data());
    units_->changed(nullptr);
  }
  StateKernels state_kernels() override {
    if (device_->host_memory()) return {};
    return {[this](Stream& stream, const DigestList& op) { kernels_->enqueue(stream, op); },
            [this](Stream& stream, const SplitMasters& op) { kernels_->enqueue(stream, op); },
            [this](Stream& stream, const JoinMasters& op) { kernels_->enqueue(stream, op); }};
  }
  bool announces_writes() const override { return true; }
  ProductPlans* plans() override { return plans_; }
  bool collective() const override { return true; }
  std::unique_ptr<PieceMemory> create_pieces() override {
    return std::make_unique<DevicePieces<T>>(*device_, *kernels_, *stream_);
  }
  Result<std::vector<double>> compute(std::span<const int32_t> tokens) override;
  Status reduce(GradientReducer& reducer) override;
  void update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
              const std::function<void()>& before_update) override;
  GradientSummary updated() override;
  uint64_t own_digest() override { return own_digest_; }
  Result<double> own_square_sum() override;
  Result<std::vector<double>> lane_square_sums(std::span<const int32_t> tokens) override;
  std::vector<uint64_t> state_digests() override { return reader_->digests(state_tensors()); }
  double state_square_sum(size_t tensor) override { return reader_->square_sum(state_tensors()[tensor]); }
  Result<double> evaluate(std::span<const int32_t> tokens) override;

 private:
  struct Told {
    GradientSummary summary;
    double loss;
  };
  enum class Purpose { kTrain, kMeasure };

  void computed(Stream& stream, uint32_t unit, float* gradient, uint64_t elements);
  void pass(Purpose purpose, uint32_t micro_step);
  Status replicas_reduce(GradientReducer& reducer);
  void read_digests();
  void mark();
  size_t lane_tokens() const { return shape_.sequences * (shape_.tokens + size_t{1}); }

  const EngineSettings settings_;
  const std::unique_ptr<Device> device_;
  const std::unique_ptr<Kernels<T>> kernels_;
  ProductPlans* const plans_;
  const std::unique_ptr<Stream> stream_;
  const LaneShape shape_;
  const LaneShare lanes_;
  const uint32_t shard_;
  const LaneSums sums_;
  std::unique_ptr<Model<T>> model_;
  ShardedState<T> state_;
  std::vector<Buffer> gradients_;  // slices, by LaneSums' slots
  std::unique_ptr<UnitStore<T>> units_;
  std::unique_ptr<StateReader<T>> reader_;
  std::unique_ptr<ShardedNorm<T>> norm_;
  Buffer tokens_;
  Buffer losses_, host_losses_;        // a double per lane
  Buffer unit_sums_, host_unit_sums_;  // a double per unit
  Buffer square_sum_, summary_, told_;
  Buffer digests_, host_digests_;  // of the lanes' own gradients, by lane, unit and chunk
  std::vector<uint64_t> digest_at_;
  Buffer host_slice_;
  std::vector<Buffer> host_sums_;
  Purpose purpose_ = Purpose::kTrain;
  uint32_t lane_ = 0;  // that is computed
  uint64_t own_digest_ = 0;
  double gradient_square_sum_ = 0;
  uint64_t queued_ = 0;
  std::shared_ptr<const Event> updated_;
};

template <typename T>
Status ShardedEngine<T>::allocate() {
  const ModelConfig& config = settings_.model;
  PITCREW_ASSIGN(model_, Model<T>::create(config, shape_, *device_, *kernels_, settings_.recompute));
  const ShardLayout layout(unit_bounds<T>(config), settings_.plan.shards());
  PITCREW_ASSIGN(state_, ShardedState<T>::create(config, layout, shard_, *device_, settings_.masters));
  std::vector<Wide<T>*> slots;
  for (uint32_t slot = 0; slot < sums_.slots(); ++slot) {
    PITCREW_ASSIGN(Buffer slice,
                   device_->allocate("a shard of the gradients", layout.slice_elements() * sizeof(float)));
    slots.push_back(slice.as<Wide<T>>());
    gradients_.push_back(std::move(slice));
  }
  typename UnitStore<T>::Settings store{layout,           shard_,           config.tie_embeddings, sums_,
                                        settings_.gather, settings_.reduce, settings_.waits,       {}};
  store.computed = [this](Stream& stream, uint32_t unit, float* gradient, uint64_t elements) {
    computed(stream, unit, gradient, elements);
  };
  PITCREW_ASSIGN(units_, UnitStore<T>::create(std::move(store), *device_, *kernels_));
  units_->bind(state_.weights(), std::move(slots));
  PITCREW_ASSIGN(norm_, ShardedNorm<T>::create(layout, shard_, *settings_.reduce, *device_, *kernels_, *stream_));
  PITCREW_ASSIGN(reader_, StateReader<T>::create(state_tensors(), *device_, *kernels_, *stream_));

  const size_t lanes = std::max(1u, lanes_.count());
  PITCREW_ASSIGN(tokens_, device_->allocate("tokens", lanes * lane_tokens() * sizeof(int32_t)));
  PITCREW_ASSIGN(losses_, device_->allocate("losses", lanes * sizeof(double)));
  PITCREW_ASSIGN(host_losses_, device_->allocate_host("losses", lanes * sizeof(double)));
  PITCREW_ASSIGN(unit_sums_, device_->allocate("square sums", layout.units() * sizeof(double)));
  PITCREW_ASSIGN(host_unit_sums_, device_->allocate_host("square sums", layout.units() * sizeof(double)));
  PITCREW_ASSIGN(square_sum_, device_->allocate("square sum", sizeof(double)));
  PITCREW_ASSIGN(summary_, device_->allocate("gradient summary", sizeof(GradientSummary)));
  PITCREW_ASSIGN(told_, device_->allocate_host("gradient summary", sizeof(Told)));
  digest_at_.push_back(0);
  for (uint32_t unit = 0; unit < layout.units(); ++unit)
    digest_at_.push_back(digest_at_.back() + digests_of(layout.unit(unit).count * sizeof(float)));
  const size_t digests = lanes * digest_at_.back() * sizeof(uint64_t);
  PITCREW_ASSIGN(digests_, device_->allocate("digests", digests));
  PITCREW_ASSIGN(host_digests_, device_->allocate_host("digests", digests));
  return {};
}

template <typename T>
void ShardedEngine<T>::mark() {
  ++queued_;
  if (settings_.queued) settings_.queued(queued_);
  if (settings_.reached) stream_->call([this, number = queued_] { settings_.reached(number); });
}

// The own lane's gradient of a unit, before it becomes part of a sum: what a replay compares, and what a bad lane is
// known by.
template <typename T>
void ShardedEngine<T>::computed(Stream& stream, uint32_t unit, float* gradient, uint64_t elements) {
  if (purpose_ == Purpose::kMeasure) {
    kernels_->enqueue(stream, SquareSum<float>{elements, gradient, unit_sums_.as<double>() + unit});
    return;
  }
  const bool head = unit + 2 == digest_at_.size();
  if (head && settings_.after_lane && device_->host_memory()) {
    stream.call([this, lane = lane_, gradient, elements] { settings_.after_lane(lane, {gradient, elements}); });
  }
  auto* digests = digests_.as<uint64_t>() + lane_ * digest_at_.back() + digest_at_[unit];
  kernels_->enqueue(
      stream,
      Digest{.data = reinterpret_cast<std::byte*>(gradient), .bytes = elements * sizeof(float), .digests = digests});
}

// One micro-step: the own lane where there is one, else only what others need of this rank.
template <typename T>
void ShardedEngine<T>::pass(Purpose purpose, uint32_t micro_step) {
  purpose_ = purpose;
  lane_ = micro_step;
  const auto into = purpose == Purpose::kTrain ? std::optional(micro_step) : std::nullopt;
  if (micro_step >= lanes_.count()) return units_->idle(*stream_, true, into);
  units_->begin(true, into);
  model_->forward_backward(*stream_, *units_, tokens_.as<int32_t>() + micro_step * lane_tokens(), shape_,
                           losses_.as<double>() + micro_step);
  mark();
}

template <typename T>
Result<std::vector<double>> ShardedEngine<T>::compute(std::span<const int32_t> tokens) {
  PITCREW_INVARIANT(tokens.size() == lanes_.count() * lane_tokens(), "tokens for every lane of the rank");
  if (!tokens.empty()) stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  for (uint32_t micro_step = 0; micro_step < sums_.micro_steps(); ++micro_step) pass(Purpose::kTrain, micro_step);
  stream_->copy(host_losses_.data(), losses_.data(), lanes_.count() * sizeof(double));
  stream_->copy(host_digests_.data(), digests_.data(), lanes_.count() * digest_at_.back() * sizeof(uint64_t));
  stream_->synchronize();
  PITCREW_TRY(units_->drain());
  own_digest_ = xxh3(host_digests_.data(), lanes_.count() * digest_at_.back() * sizeof(uint64_t));
  return std::vector<double>(host_losses_.as<double>(), host_losses_.as<double>() + lanes_.count());
}

template <typename T>
Status ShardedEngine<T>::reduce(GradientReducer& reducer) {
  PITCREW_TRY(replicas_reduce(reducer));
  const uint32_t sum = sums_.left().empty() ? 0 : sums_.left()[0];
  PITCREW_ASSIGN(gradient_square_sum_, norm_->square_sum(gradients_[sum].template as<float>()));
  return {};
}

// As EngineOf::reduce, of the own slice with the other replicas' ranks that hold the same.
template <typename T>
Status ShardedEngine<T>::replicas_reduce(GradientReducer& reducer) {
  if (settings_.plan.replicas() == 1) return {};
  const uint64_t elements = state_.elements(), bytes = elements * sizeof(float);
  const uint32_t result = sums_.left().empty() ? 0 : sums_.left()[0];
  std::vector<const float*> mine;
  if (device_->host_memory() || reducer.device_memory()) {
    for (const uint32_t slot : sums_.left()) mine.push_back(gradients_[slot].template as<float>());
    return reducer.reduce(mine, std::span(gradients_[result].template as<float>(), elements));
  }
  while (host_sums_.size() < std::max<size_t>(1, sums_.left().size())) {
    PITCREW_ASSIGN(Buffer host, device_->allocate_host("gradients under way to peers", bytes));
    host_sums_.push_back(std::move(host));
  }
  for (size_t i = 0; i < sums_.left().size(); ++i) {
    stream_->copy(host_sums_[i].data(), gradients_[sums_.left()[i]].data(), bytes);
    mine.push_back(host_sums_[i].template as<float>());
  }
  stream_->synchronize();
  PITCREW_TRY(reducer.reduce(mine, std::span(host_sums_[0].template as<float>(), elements)));
  stream_->copy(gradients_[result].data(), host_sums_[0].data(), bytes);
  return {};
}

template <typename T>
void ShardedEngine<T>::update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer,
                              uint64_t step, const std::function<void()>& before_update) {
  const auto* gradient = gradients_[sums_.left().empty() ? 0 : sums_.left()[0]].template as<float>();
  auto* summary = summary_.as<GradientSummary>();
  stream_->copy(square_sum_.data(), &gradient_square_sum_, sizeof(double));
  kernels_->enqueue(*stream_, Summarize{square_sum_.as<double>(), tokens, clip, summary, norm_limit});
  before_update();
  state_.adamw(*kernels_, *stream_, gradient, summary, optimizer, step, settings_.before_write);
  stream_->copy(told_.data(), summary, sizeof(GradientSummary));
  mark();
  updated_ = stream_->record();
  units_->changed(updated_);
}

template <typename T>
GradientSummary ShardedEngine<T>::updated() {
  PITCREW_INVARIANT(updated_ != nullptr, "something was updated");
  updated_->wait();
  return told_.as<Told>()->summary;
}

template <typename T>
Result<double> ShardedEngine<T>::own_square_sum() {
  // The tokens of the last compute() are still there.
  PITCREW_ASSIGN(const std::vector<double> lanes, lane_square_sums({}));
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <typename T>
Result<std::vector<double>> ShardedEngine<T>::lane_square_sums(std::span<const int32_t> tokens) {
  if (!tokens.empty()) stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  std::vector<double> sums(lanes_.count());
  const size_t units = digest_at_.size() - 1;
  for (uint32_t micro_step = 0; micro_step < sums_.micro_steps(); ++micro_step) {
    pass(Purpose::kMeasure, micro_step);
    if (micro_step >= lanes_.count()) continue;
    stream_->copy(host_unit_sums_.data(), unit_sums_.data(), units * sizeof(double));
    stream_->synchronize();
    for (size_t unit = 0; unit < units; ++unit) sums[micro_step] += host_unit_sums_.as<double>()[unit];
  }
  PITCREW_TRY(units_->drain());
  return sums;
}

template <typename T>
Result<double> ShardedEngine<T>::evaluate(std::span<const int32_t> tokens) {
  if (tokens.empty()) {
    units_->idle(*stream_, false, std::nullopt);
    PITCREW_TRY(units_->drain());
    return 0.0;
  }
  stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  units_->begin(false, std::nullopt);
  model_->forward(*stream_, *units_, tokens_.as<int32_t>(), shape_, losses_.as<double>());
  stream_->copy(&told_.as<Told>()->loss, losses_.data(), sizeof(double));
  stream_->synchronize();
  PITCREW_TRY(units_->drain());
  return told_.as<Told>()->loss;
}

}  // namespace

template <typename T>
ShardedSizes sharded_sizes(const ModelConfig& config, const LanePlan& plan, uint32_t rank) {
  const ShardLayout layout(unit_bounds<T>(config), plan.shards());
  const LaneSums sums(plan.range(rank / plan.shards()), plan.lanes(), plan.shards());
  const auto units = UnitStore<T>::sizes(layout, config.tie_embeddings);
  ShardedSizes sizes{.slice = layout.slice_elements(),
                     .sums = sums.slots(),
                     .gathered = units.weights,
                     .computed = units.gradients,
                     .received = units.received};
  sizes.norm = ShardedNorm<T>::bytes(layout, rank % plan.shards());
  for (uint32_t unit = 0; unit < layout.units(); ++unit)
    sizes.digests += digests_of(layout.unit(unit).count * sizeof(float));
  sizes.digests *= std::max(1u, plan.of(rank).count());
  return sizes;
}

template <typename T>
Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings settings, std::unique_ptr<Device> device,
                                                          std::unique_ptr<Kernels<T>> kernels, ProductPlans* plans) {
  auto engine = std::make_unique<ShardedEngine<T>>(std::move(settings), std::move(device), std::move(kernels), plans);
  PITCREW_TRY(engine->allocate());
  return std::unique_ptr<LaneEngine>(std::move(engine));
}

template ShardedSizes sharded_sizes<float>(const ModelConfig&, const LanePlan&, uint32_t);
template ShardedSizes sharded_sizes<BF16>(const ModelConfig&, const LanePlan&, uint32_t);
template Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings, std::unique_ptr<Device>,
                                                                   std::unique_ptr<Kernels<float>>, ProductPlans*);
template Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings, std::unique_ptr<Device>,
                                                                   std::unique_ptr<Kernels<BF16>>, ProductPlans*);

}  // namespace pitcrew::trainer
