#include "trainer/train/lane_engine.hpp"

#include <algorithm>
#include <cstring>

#include "lib/base/digest.hpp"

namespace pitcrew::trainer {

uint64_t LaneEngine::gradient_buffers(const LanePlan& plan, uint32_t rank) {
  return std::max(1u, peak_values(plan.of(rank), plan.lanes()));
}

Result<std::unique_ptr<LaneEngine>> LaneEngine::create(const ModelConfig& model, uint32_t tokens, const LanePlan& plan,
                                                       uint32_t rank, CpuDeviceOptions device) {
  std::unique_ptr<LaneEngine> engine(new LaneEngine(std::move(device), tokens, plan, rank));
  PITCREW_TRY(engine->allocate(model));
  return engine;
}

LaneEngine::LaneEngine(CpuDeviceOptions device, uint32_t tokens, const LanePlan& plan, uint32_t rank)
    : device_(std::move(device)),
      kernels_(create_cpu_kernels<float>(device_)),
      stream_(device_.create_stream("compute")),
      shape_{plan.micro(), tokens},
      range_(plan.of(rank)),
      lanes_(plan.lanes()) {
  gradients_.resize(gradient_buffers(plan, rank));
}

LaneEngine::~LaneEngine() {
  // Nothing may be under way on the buffers when they go.
  if (stream_) stream_->synchronize();
}

Status LaneEngine::allocate(const ModelConfig& model) {
  PITCREW_ASSIGN(model_, Model<float>::create(model, shape_, device_, *kernels_));
  PITCREW_ASSIGN(state_, ModelState<float>::create(model, device_));
  const size_t lane_tokens = shape_.sequences * (shape_.tokens + size_t{1});
  const size_t lanes = std::max(1u, range_.count());
  PITCREW_ASSIGN(tokens_, device_.allocate("tokens", lanes * lane_tokens * sizeof(int32_t)));
  PITCREW_ASSIGN(losses_, device_.allocate("losses", lanes * sizeof(double)));
  PITCREW_ASSIGN(square_sum_, device_.allocate("square sum", sizeof(double)));
  PITCREW_ASSIGN(summary_, device_.allocate("gradient summary", sizeof(GradientSummary)));
  for (Arena& gradients : gradients_) {
    PITCREW_ASSIGN(gradients, state_.create_gradients(device_, "gradients"));
  }
  return {};
}

std::vector<double> LaneEngine::compute(std::span<const int32_t> tokens) {
  const size_t lane_tokens = shape_.sequences * (shape_.tokens + size_t{1});
  PITCREW_INVARIANT(tokens.size() == range_.count() * lane_tokens, "tokens for every lane of the rank");
  std::vector<uint32_t> free;
  for (uint32_t i = static_cast<uint32_t>(gradients_.size()); i-- > 0;) free.push_back(i);
  TreeFold fold(lanes_);
  if (!tokens.empty()) stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  for (uint32_t i = 0; i < range_.count(); ++i) {
    const uint32_t buffer = free.back();
    free.pop_back();
    model_->forward_backward(*stream_, state_.params(), tokens_.as<int32_t>() + i * lane_tokens, shape_,
                             gradients_[buffer].as<float>(), Gradients::kOverwrite, 1.0, losses_.as<double>() + i);
    fold.push({0, range_.first + i}, buffer, [&](uint32_t into, uint32_t from) {
      kernels_->enqueue(*stream_,
                        Add<float>{state_.flat_elements(), gradients_[into].as<float>(), gradients_[from].as<float>()});
      free.push_back(from);
    });
  }
  stream_->synchronize();
  sums_.clear();
  for (const TreeFold::Part& part : fold.parts()) sums_.push_back(part.value);
  return {losses_.as<double>(), losses_.as<double>() + range_.count()};
}

Status LaneEngine::reduce(GradientReducer& reducer) {
  std::vector<const float*> mine;
  for (const uint32_t sum : sums_) mine.push_back(gradients_[sum].as<float>());
  // The sum comes to lie in the first of them, where update() looks for it.
  if (sums_.empty()) sums_.push_back(0);
  return reducer.reduce(mine, std::span(gradients_[sums_[0]].as<float>(), state_.flat_elements()));
}

GradientSummary LaneEngine::update(double tokens, double clip, const AdamWSettings& optimizer, uint64_t step,
                                   const std::function<void()>& before_update) {
  const float* gradient = gradients_[sums_[0]].as<float>();
  kernels_->enqueue(*stream_, SquareSum<float>{state_.flat_elements(), gradient, square_sum_.as<double>()});
  kernels_->enqueue(*stream_, Summarize{square_sum_.as<double>(), tokens, clip, summary_.as<GradientSummary>()});
  before_update();
  state_.adamw(*kernels_, *stream_, gradient, summary_.as<GradientSummary>(), optimizer, step);
  stream_->synchronize();
  return *summary_.as<GradientSummary>();
}

uint64_t LaneEngine::own_digest() const {
  uint64_t digest = 0;
  for (const uint32_t sum : sums_) {
    digest = digest * 31 + xxh3(gradients_[sum].data(), state_.flat_elements() * sizeof(float));
  }
  return digest;
}

double LaneEngine::evaluate(std::span<const int32_t> tokens) {
  stream_->copy(tokens_.data(), tokens.data(), tokens.size_bytes());
  model_->forward(*stream_, state_.params(), tokens_.as<int32_t>(), shape_, losses_.as<double>());
  stream_->synchronize();
  return *losses_.as<double>();
}

}  // namespace pitcrew::trainer
