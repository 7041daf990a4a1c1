#include "trainer/train/sharded_engine.hpp"

#include <algorithm>
#include <mutex>

#include "lib/base/digest.hpp"
#include "trainer/parallel/square_sum_plan.hpp"
#include "trainer/train/device_pieces.hpp"
#include "trainer/train/engine_base.hpp"
#include "trainer/train/replica_sums.hpp"
#include "trainer/train/sharded_norm.hpp"
#include "trainer/train/sharded_state.hpp"
#include "trainer/train/unit_store.hpp"

namespace pitcrew::trainer {

namespace {

uint64_t digests_of(uint64_t bytes) { return Digest{.bytes = bytes}.count(); }

template <typename T>
class ShardedEngine final : public EngineBase<T> {
  using Base = EngineBase<T>;

 public:
  ShardedEngine(EngineSettings settings, std::shared_ptr<Device> device, std::unique_ptr<Kernels<T>> kernels,
                ProductPlans* plans)
      : Base(std::move(settings), std::move(device), std::move(kernels), plans),
        lanes_(settings_.plan.of(settings_.rank)),
        shard_(settings_.rank % settings_.plan.shards()),
        sums_(settings_.plan.range(settings_.rank / settings_.plan.shards()), settings_.plan.lanes(),
              settings_.plan.shards()),
        replica_stream_(device_->create_stream("replicas")) {}
  // Nothing may be under way on the buffers when they go.
  ~ShardedEngine() override {
    units_.reset();
    early_.reset();
    stream_->synchronize();
  }

  Status allocate();

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
  bool collective() const override { return true; }
  std::unique_ptr<PieceMemory> create_pieces() override {
    return std::make_unique<DevicePieces<T>>(*device_, *kernels_, *replica_stream_);
  }
  Result<std::vector<double>> compute(std::span<const int32_t> tokens) override;
  void reduce_early(GradientReducer* reducer) override;
  Status reduce(GradientReducer& reducer) override;
  void update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
              const std::function<void()>& before_update) override;
  uint64_t own_digest() override { return own_digest_; }
  Result<double> own_square_sum() override;
  Result<std::vector<double>> lane_square_sums(std::span<const int32_t> tokens) override;
  Result<double> evaluate(std::span<const int32_t> tokens) override;

 private:
  using Base::device_;
  using Base::kernels_;
  using Base::lane_tokens;
  using Base::model_;
  using Base::place_;
  using Base::settings_;
  using Base::shape_;
  using Base::stream_;
  enum class Purpose { kTrain, kMeasure };

  void set_held_parameters(const Wide<T>* flat) override {
    state_.set_parameters(*kernels_, *stream_, flat);
    units_->changed(nullptr);
  }
  Status allocate_units(const ShardLayout& layout);
  void summed(uint32_t unit, std::shared_ptr<const Event> after);
  std::vector<float*> own_sums() const;
  void computed(Stream& stream, uint32_t unit, float* gradient, uint64_t elements);
  void pass(Purpose purpose, uint32_t micro_step);
  // Nothing of the last passes is under way to other ranks.
  Status drain();
  // The slice that the sum of all lanes comes to lie in.
  float* result() const { return gradients_[sums_.left().empty() ? 0 : sums_.left()[0]].template as<float>(); }

  const LaneShare lanes_;
  const uint32_t shard_;
  const LaneSums sums_;
  ShardedState<T> state_;
  std::vector<Buffer> gradients_;  // slices, by LaneSums' slots
  std::unique_ptr<UnitStore<T>> units_;
  const std::unique_ptr<Stream> replica_stream_;
  std::mutex early_mutex_;  // of early_ as other threads see it; the engine's alone changes it
  std::unique_ptr<ReplicaSums> early_;
  std::unique_ptr<ShardedNorm<T>> norm_;
  Buffer unit_sums_, host_unit_sums_;  // a double per unit
  Buffer digests_, host_digests_;      // of the lanes' own gradients, by lane, unit and chunk
  std::vector<uint64_t> digest_at_;
  Purpose purpose_ = Purpose::kTrain;
  uint32_t lane_ = 0;  // that is computed
  uint64_t own_digest_ = 0;
  double gradient_square_sum_ = 0;
};

template <typename T>
Status ShardedEngine<T>::allocate() {
  PITCREW_TRY(Base::allocate_operands(lanes_.count()));
  const ShardLayout layout(unit_bounds<T>(settings_.model, place_), settings_.plan.shards());
  PITCREW_ASSIGN(state_, ShardedState<T>::create(settings_.model, layout, shard_, *device_, settings_.masters, place_));
  PITCREW_TRY(allocate_units(layout));
  const SquareSumPlan squares(layout, kSumBlock, counted_runs<T>(state_.layout(), place_));
  PITCREW_ASSIGN(norm_, ShardedNorm<T>::create(squares, shard_, *settings_.reduce, *device_, *kernels_, *stream_));
  PITCREW_TRY(Base::allocate_reader());
  PITCREW_ASSIGN(unit_sums_, device_->allocate("square sums", layout.units() * sizeof(double)));
  PITCREW_ASSIGN(host_unit_sums_, device_->allocate_host("square sums", layout.units() * sizeof(double)));
  digest_at_.push_back(0);
  for (uint32_t unit = 0; unit < layout.units(); ++unit)
    digest_at_.push_back(digest_at_.back() + digests_of(layout.unit(unit).count * sizeof(float)));
  const size_t digests = std::max(1u, lanes_.count()) * digest_at_.back() * sizeof(uint64_t);
  PITCREW_ASSIGN(digests_, device_->allocate("digests", digests));
  PITCREW_ASSIGN(host_digests_, device_->allocate_host("digests", digests));
  return {};
}

template <typename T>
Status ShardedEngine<T>::allocate_units(const ShardLayout& layout) {
  std::vector<Wide<T>*> slots;
  for (uint32_t slot = 0; slot < sums_.slots(); ++slot) {
    PITCREW_ASSIGN(Buffer slice,
                   device_->allocate("a shard of the gradients", layout.slice_elements() * sizeof(float)));
    slots.push_back(slice.as<Wide<T>>());
    gradients_.push_back(std::move(slice));
  }
  typename UnitStore<T>::Settings store{
      layout, shard_, settings_.model.tie_embeddings, sums_, settings_.gather, settings_.reduce, settings_.waits, {}};
  store.computed = [this](Stream& stream, uint32_t unit, float* gradient, uint64_t elements) {
    computed(stream, unit, gradient, elements);
  };
  store.summed = [this](uint32_t unit) { summed(unit, nullptr); };
  PITCREW_ASSIGN(units_, UnitStore<T>::create(std::move(store), *device_, *kernels_));
  units_->bind(state_.weights(), std::move(slots));
  return {};
}

template <typename T>
Status ShardedEngine<T>::drain() {
  PITCREW_TRY(units_->drain());
  return Base::group_status();
}

// The own lane's gradient of a unit, before it becomes part of a sum: what a replay compares, and what a bad lane is
// known by.
template <typename T>
void ShardedEngine<T>::computed(Stream& stream, uint32_t unit, float* gradient, uint64_t elements) {
  const bool head = unit + 2 == digest_at_.size();
  if (head && settings_.after_lane && device_->host_memory()) {
    stream.call([this, lane = lane_, gradient, elements] { settings_.after_lane(lane, {gradient, elements}); });
  }
  if (purpose_ == Purpose::kMeasure) {
    kernels_->enqueue(stream, SquareSum<float>{elements, gradient, unit_sums_.as<double>() + unit});
    return;
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
  model_->forward_backward(*stream_, *units_, Base::tokens_of(micro_step), shape_, Base::loss_of(micro_step));
  Base::mark();
}

template <typename T>
Result<std::vector<double>> ShardedEngine<T>::compute(std::span<const int32_t> tokens) {
  PITCREW_INVARIANT(tokens.size() == lanes_.count() * lane_tokens(), "tokens for every lane of the rank");
  if (early_) PITCREW_TRY(early_->drain());  // of a step that is computed again
  Base::take_tokens(tokens);
  for (uint32_t micro_step = 0; micro_step < sums_.micro_steps(); ++micro_step) pass(Purpose::kTrain, micro_step);
  // Without lanes of its own a replica has nothing but the others' sums to wait for, in their order.
  for (uint32_t unit = state_.shards().units(); sums_.micro_steps() == 0 && unit-- > 0;)
    summed(unit, Base::update_event());
  Base::fetch_losses(lanes_.count());
  const size_t digests = lanes_.count() * digest_at_.back() * sizeof(uint64_t);
  stream_->copy(host_digests_.data(), digests_.data(), digests);
  stream_->synchronize();
  PITCREW_TRY(drain());
  own_digest_ = xxh3(host_digests_.data(), digests);
  return Base::fetched_losses(lanes_.count());
}

template <typename T>
std::vector<float*> ShardedEngine<T>::own_sums() const {
  std::vector<float*> sums;
  for (const uint32_t slot : sums_.left()) sums.push_back(gradients_[slot].template as<float>());
  return sums;
}

template <typename T>
void ShardedEngine<T>::reduce_early(GradientReducer* reducer) {
  std::unique_ptr<ReplicaSums> next, last;
  if (reducer != nullptr && settings_.plan.replicas() > 1) {
    next = std::make_unique<ReplicaSums>(state_.shards(), own_sums(), result(), *reducer, *device_, *replica_stream_);
  }
  const std::lock_guard lock(early_mutex_);
  last = std::exchange(early_, std::move(next));
}

template <typename T>
void ShardedEngine<T>::summed(uint32_t unit, std::shared_ptr<const Event> after) {
  const std::lock_guard lock(early_mutex_);
  if (early_) early_->give(unit, std::move(after));
}

template <typename T>
Status ShardedEngine<T>::reduce(GradientReducer& reducer) {
  if (early_) {
    if (settings_.waits) settings_.waits(true);
    PITCREW_TRY(early_->drain());
    if (settings_.waits) settings_.waits(false);
  } else if (settings_.plan.replicas() > 1) {
    PITCREW_TRY(Base::reduce_sums(reducer, own_sums(), result(), state_.elements()));
  }
  PITCREW_ASSIGN(gradient_square_sum_, norm_->square_sum(result()));
  return {};
}

template <typename T>
void ShardedEngine<T>::update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer,
                              uint64_t step, const std::function<void()>& before_update) {
  stream_->copy(Base::square_sum(), &gradient_square_sum_, sizeof(double));
  Base::conclude(tokens, clip, norm_limit, before_update, [&](const GradientSummary* summary) {
    state_.adamw(*kernels_, *stream_, result(), summary, optimizer, step, settings_.before_write);
  });
  units_->changed(Base::update_event());
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
  Base::take_tokens(tokens);
  std::vector<double> sums(lanes_.count());
  const size_t units = digest_at_.size() - 1;
  for (uint32_t micro_step = 0; micro_step < sums_.micro_steps(); ++micro_step) {
    pass(Purpose::kMeasure, micro_step);
    if (micro_step >= lanes_.count()) continue;
    stream_->copy(host_unit_sums_.data(), unit_sums_.data(), units * sizeof(double));
    stream_->synchronize();
    for (size_t unit = 0; unit < units; ++unit) sums[micro_step] += host_unit_sums_.as<double>()[unit];
  }
  PITCREW_TRY(drain());
  return sums;
}

template <typename T>
Result<double> ShardedEngine<T>::evaluate(std::span<const int32_t> tokens) {
  if (tokens.empty()) {
    units_->idle(*stream_, false, std::nullopt);
    PITCREW_TRY(drain());
    return 0.0;
  }
  Base::take_tokens(tokens);
  units_->begin(false, std::nullopt);
  model_->forward(*stream_, *units_, Base::tokens_of(0), shape_, Base::loss_of(0));
  const double loss = Base::fetch(Base::loss_of(0));
  PITCREW_TRY(drain());
  return loss;
}

}  // namespace

template <typename T>
ShardedSizes sharded_sizes(const ModelConfig& config, const LanePlan& plan, uint32_t rank, TensorPlace place) {
  const ShardLayout layout(unit_bounds<T>(config, place), plan.shards());
  const LaneSums sums(plan.range(rank / plan.shards()), plan.lanes(), plan.shards());
  const auto units = UnitStore<T>::sizes(layout, config.tie_embeddings);
  ShardedSizes sizes{.slice = layout.slice_elements(),
                     .sums = sums.slots(),
                     .gathered = units.weights,
                     .computed = units.gradients,
                     .received = units.received};
  const SquareSumPlan squares(layout, kSumBlock, counted_runs<T>(parameter_layout<T>(config, place), place));
  sizes.norm = ShardedNorm<T>::bytes(squares, rank % plan.shards());
  for (uint32_t unit = 0; unit < layout.units(); ++unit)
    sizes.digests += digests_of(layout.unit(unit).count * sizeof(float));
  sizes.digests *= std::max(1u, plan.of(rank).count());
  return sizes;
}

template <typename T>
Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings settings, std::shared_ptr<Device> device,
                                                          std::unique_ptr<Kernels<T>> kernels, ProductPlans* plans) {
  auto engine = std::make_unique<ShardedEngine<T>>(std::move(settings), std::move(device), std::move(kernels), plans);
  PITCREW_TRY(engine->allocate());
  return std::unique_ptr<LaneEngine>(std::move(engine));
}

template ShardedSizes sharded_sizes<float>(const ModelConfig&, const LanePlan&, uint32_t, TensorPlace);
template ShardedSizes sharded_sizes<BF16>(const ModelConfig&, const LanePlan&, uint32_t, TensorPlace);
template Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings, std::shared_ptr<Device>,
                                                                   std::unique_ptr<Kernels<float>>, ProductPlans*);
template Result<std::unique_ptr<LaneEngine>> create_sharded_engine(EngineSettings, std::shared_ptr<Device>,
                                                                   std::unique_ptr<Kernels<BF16>>, ProductPlans*);

}  // namespace pitcrew::trainer
