#include "trainer/train/lane_engine.hpp"

#include <algorithm>

#include "lib/base/digest.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/train/device_pieces.hpp"
#include "trainer/train/engine_base.hpp"
#include "trainer/train/sharded_engine.hpp"

namespace pitcrew::trainer {

namespace {

template <typename T>
class EngineOf final : public EngineBase<T> {
  using Base = EngineBase<T>;

 public:
  EngineOf(EngineSettings settings, std::shared_ptr<Device> device, std::unique_ptr<Kernels<T>> kernels,
           ProductPlans* plans)
      : Base(std::move(settings), std::move(device), std::move(kernels), plans),
        range_(settings_.plan.range(settings_.rank)),
        gradients_(LaneEngine::gradient_buffers(settings_.plan, settings_.rank)) {}
  // Nothing may be under way on the buffers when they go.
  ~EngineOf() override { stream_->synchronize(); }

  Status allocate();

  void init(uint64_t seed) override { state_.init(*kernels_, *stream_, seed); }
  std::vector<StateTensor> state_tensors() const override { return state_.state_tensors(); }
  void publish() override {
    state_.publish(*kernels_, *stream_);
    stream_->synchronize();
  }
  bool collective() const override { return group_ != nullptr; }
  std::unique_ptr<PieceMemory> create_pieces() override {
    return std::make_unique<DevicePieces<T>>(*device_, *kernels_, *stream_);
  }
  Result<std::vector<double>> compute(std::span<const int32_t> tokens) override;
  // A lane's gradient is all that it has until the last lane's is complete.
  void reduce_early(GradientReducer*) override {}
  Status reduce(GradientReducer& reducer) override;
  void update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
              const std::function<void()>& before_update) override;
  uint64_t own_digest() override;
  Result<double> own_square_sum() override;
  Result<std::vector<double>> lane_square_sums(std::span<const int32_t> tokens) override;
  Result<double> evaluate(std::span<const int32_t> tokens) override;

 private:
  using Base::device_;
  using Base::group_;
  using Base::kernels_;
  using Base::lane_tokens;
  using Base::model_;
  using Base::place_;
  using Base::settings_;
  using Base::shape_;
  using Base::stream_;

  void set_held_parameters(const Wide<T>* flat) override { state_.set_params(*kernels_, *stream_, flat); }
  void compute_lane(uint32_t lane, uint32_t buffer);
  Wide<T>* gradient(uint32_t buffer) const { return gradients_[buffer].template as<Wide<T>>(); }
  double square_sum_of(const Wide<T>* values);
  Digest digest_of(uint32_t buffer) const {
    return {.data = gradients_[buffer].data(),
            .bytes = state_.flat_elements() * sizeof(Wide<T>),
            .digests = digests_.template as<uint64_t>()};
  }

  const LaneRange range_;
  ModelState<T> state_;
  Buffer digests_, host_digests_;  // of the chunks of one gradient buffer
  std::vector<Arena> gradients_;
  std::vector<ShardLayout::Run> counted_;  // what of the gradient the norm counts here
  std::vector<uint32_t> sums_;  // which gradient buffers hold the sums of this rank's subtrees, from left to right
};

template <typename T>
Status EngineOf<T>::allocate() {
  PITCREW_TRY(Base::allocate_operands(range_.count()));
  PITCREW_ASSIGN(state_, ModelState<T>::create(settings_.model, *device_, settings_.masters, place_));
  counted_ = counted_runs<T>(state_.layout(), place_);
  for (Arena& gradients : gradients_) {
    PITCREW_ASSIGN(gradients, state_.create_gradients(*device_, "gradients"));
  }
  PITCREW_TRY(Base::allocate_reader());
  const size_t digests = digest_of(0).count() * sizeof(uint64_t);
  PITCREW_ASSIGN(digests_, device_->allocate("digests", digests));
  PITCREW_ASSIGN(host_digests_, device_->allocate_host("digests", digests));
  return {};
}

template <typename T>
void EngineOf<T>::compute_lane(uint32_t lane, uint32_t buffer) {
  for (uint32_t pass = 0; pass < settings_.plan.passes(); ++pass) {
    if (pass > 0) Base::mark();
    model_->forward_backward(*stream_, state_.weights(), Base::tokens_of(lane, pass), shape_, gradient(buffer),
                             pass == 0 ? Gradients::kOverwrite : Gradients::kAdd, 1.0, Base::loss_of(lane, pass));
  }
  if (settings_.after_lane && device_->host_memory()) {
    stream_->call([this, lane, values = gradient(buffer)] {
      settings_.after_lane(lane, {values, state_.flat_elements()});
    });
  }
  Base::mark();
}

template <typename T>
Result<std::vector<double>> EngineOf<T>::compute(std::span<const int32_t> tokens) {
  PITCREW_INVARIANT(tokens.size() == range_.count() * lane_tokens(), "tokens for every lane of the rank");
  std::vector<uint32_t> free;
  for (uint32_t i = static_cast<uint32_t>(gradients_.size()); i-- > 0;) free.push_back(i);
  TreeFold fold(settings_.plan.lanes());
  Base::take_tokens(tokens);
  for (uint32_t i = 0; i < range_.count(); ++i) {
    const uint32_t buffer = free.back();
    free.pop_back();
    compute_lane(i, buffer);
    fold.push({0, range_.first + i}, buffer, [&](uint32_t into, uint32_t from) {
      kernels_->enqueue(*stream_, Add<Wide<T>>{state_.flat_elements(), gradient(into), gradient(from)});
      free.push_back(from);
    });
  }
  Base::fetch_losses(range_.count());
  stream_->synchronize();
  PITCREW_TRY(Base::group_status());
  sums_.clear();
  for (const TreeFold::Part& part : fold.parts()) sums_.push_back(part.value);
  return Base::fetched_losses(range_.count());
}

template <typename T>
Status EngineOf<T>::reduce(GradientReducer& reducer) {
  std::vector<float*> sums;
  for (const uint32_t sum : sums_) sums.push_back(gradient(sum));
  // The sum comes to lie in the first of them, where update() looks for it.
  if (sums_.empty()) sums_.push_back(0);
  return Base::reduce_sums(reducer, sums, gradient(sums_[0]), state_.flat_elements());
}

template <typename T>
void EngineOf<T>::update(double tokens, double clip, double norm_limit, const AdamWSettings& optimizer, uint64_t step,
                         const std::function<void()>& before_update) {
  const Wide<T>* sum = gradient(sums_[0]);
  for (const ShardLayout::Run& run : counted_) {
    kernels_->enqueue(*stream_,
                      SquareSum<Wide<T>>{run.count, sum + run.first, Base::square_sum(), &run != &counted_[0]});
  }
  Base::conclude(tokens, clip, norm_limit, before_update, [&](const GradientSummary* summary) {
    state_.adamw(*kernels_, *stream_, sum, summary, optimizer, step, settings_.before_write);
  });
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
double EngineOf<T>::square_sum_of(const Wide<T>* values) {
  kernels_->enqueue(*stream_, SquareSum<Wide<T>>{state_.flat_elements(), values, Base::square_sum()});
  return Base::fetch(Base::square_sum());
}

template <typename T>
Result<double> EngineOf<T>::own_square_sum() {
  double sum = 0;
  for (const uint32_t buffer : sums_) sum += square_sum_of(gradient(buffer));
  return sum;
}

template <typename T>
Result<std::vector<double>> EngineOf<T>::lane_square_sums(std::span<const int32_t> tokens) {
  PITCREW_INVARIANT(tokens.size() == range_.count() * lane_tokens(), "tokens for every lane of the rank");
  std::vector<double> sums(range_.count());
  Base::take_tokens(tokens);
  for (uint32_t lane = 0; lane < range_.count(); ++lane) {
    compute_lane(lane, 0);
    sums[lane] = square_sum_of(gradient(0));
  }
  sums_.clear();
  PITCREW_TRY(Base::group_status());
  return sums;
}

template <typename T>
Result<double> EngineOf<T>::evaluate(std::span<const int32_t> tokens) {
  if (tokens.empty()) return 0.0;
  Base::take_tokens(tokens);
  model_->forward(*stream_, state_.weights(), Base::tokens_of(0), shape_, Base::loss_of(0));
  const double loss = Base::fetch(Base::loss_of(0));
  PITCREW_TRY(Base::group_status());
  return loss;
}

}  // namespace

uint64_t LaneEngine::gradient_buffers(const LanePlan& plan, uint32_t rank) {
  return std::max(1u, peak_values(plan.range(rank), plan.lanes()));
}

template <typename T>
Result<std::unique_ptr<LaneEngine>> LaneEngine::create(EngineSettings settings, std::shared_ptr<Device> device,
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

template Result<std::unique_ptr<LaneEngine>> LaneEngine::create(EngineSettings, std::shared_ptr<Device>,
                                                                std::unique_ptr<Kernels<float>>, ProductPlans*);
template Result<std::unique_ptr<LaneEngine>> LaneEngine::create(EngineSettings, std::shared_ptr<Device>,
                                                                std::unique_ptr<Kernels<BF16>>, ProductPlans*);

}  // namespace pitcrew::trainer
