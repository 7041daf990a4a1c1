// Masters kept whole and in two halves: the same training, bit for bit.
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/train/lane_engine.hpp"

namespace pitcrew::trainer {
namespace {

ModelConfig tiny() {
  return {.layers = 2, .width = 32, .heads = 4, .kv_heads = 2, .mlp = 56, .vocab = 70, .context = 16};
}

struct Training {
  explicit Training(Masters masters) {
    auto device = std::make_unique<CpuDevice>(CpuDeviceOptions{.threads = 1});
    auto kernels = create_cpu_kernels<BF16>(*device);
    EngineSettings settings{tiny(), 16, *LanePlan::make(2, 1, 1), 0, {}};
    settings.masters = masters;
    settings.before_write = [this](size_t tensor) { written.push_back(tensor); };
    engine = std::move(*LaneEngine::create<BF16>(std::move(settings), std::move(device), std::move(kernels)));
    engine->init(5);
  }
  double step(const std::vector<int32_t>& tokens, uint64_t number) {
    const std::vector<double> losses = *engine->compute(tokens);
    engine->update(32, 1, INFINITY, {.learning_rate = 0.01}, number, [] {});
    EXPECT_EQ(engine->updated().finite, 1u);
    return losses[0] + losses[1];
  }
  // The state as a checkpoint would hold it.
  std::vector<std::vector<float>> state() const {
    engine->stream().synchronize();
    std::vector<std::vector<float>> values;
    for (const StateTensor& tensor : engine->state_tensors()) {
      auto& into = values.emplace_back(tensor.elements());
      if (tensor.remainders == nullptr) {
        std::memcpy(into.data(), tensor.data, tensor.bytes());
        continue;
      }
      const auto* weights = reinterpret_cast<const BF16*>(tensor.data);
      const auto* remainders = reinterpret_cast<const uint16_t*>(tensor.remainders);
      for (size_t i = 0; i < into.size(); ++i) into[i] = join_master({weights[i], remainders[i]});
    }
    return values;
  }
  std::vector<size_t> written;
  std::unique_ptr<LaneEngine> engine;
};

TEST(Masters, ten_steps_with_remainders_are_those_with_float_masters_bit_for_bit) {
  Training whole(Masters::kFloat), halves(Masters::kRemainder);
  EXPECT_EQ(whole.state(), halves.state());
  const auto before = whole.state();
  Random random(3);
  for (uint64_t number = 1; number <= 10; ++number) {
    std::vector<int32_t> tokens(2 * 17);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(70));
    EXPECT_EQ(whole.step(tokens, number), halves.step(tokens, number)) << number;
    ASSERT_EQ(whole.state(), halves.state()) << number;
  }
  EXPECT_NE(whole.state(), before);
}

TEST(Masters, given_parameters_come_to_lie_in_both_halves) {
  Training whole(Masters::kFloat), halves(Masters::kRemainder);
  std::vector<float> params(parameter_layout<BF16>(tiny()).flat_elements<BF16>());
  for (size_t i = 0; i < params.size(); ++i) params[i] = 1.0f + static_cast<float>(i) / 7919;
  whole.engine->set_parameters(params);
  halves.engine->set_parameters(params);
  EXPECT_EQ(whole.state(), halves.state());
  EXPECT_EQ(whole.state()[0][1], params[1]);
}

TEST(Masters, replicas_with_remainders_are_compared_by_both_halves) {
  Training one(Masters::kRemainder), other(Masters::kRemainder);
  EXPECT_EQ(one.engine->state_digests(), other.engine->state_digests());
  const double sum = one.engine->state_square_sum(0);
  double expected = 0;
  const auto state = one.state();
  for (const float value : state[0]) expected += double{value} * value;
  EXPECT_NEAR(sum, expected, 1e-9 * expected);
  other.engine->state_tensors()[0].remainders[3] ^= std::byte{1};
  const auto mine = one.engine->state_digests(), theirs = other.engine->state_digests();
  EXPECT_NE(mine[0], theirs[0]);
  EXPECT_EQ(std::vector(mine.begin() + 1, mine.end()), std::vector(theirs.begin() + 1, theirs.end()));
}

TEST(Masters, the_optimizer_announces_each_tensor_once_before_it_writes_in_the_order_of_buckets) {
  Training training(Masters::kFloat);
  training.step(std::vector<int32_t>(2 * 17, 1), 1);
  const std::vector<StateTensor> tensors = training.engine->state_tensors();
  ASSERT_EQ(training.written.size(), tensors.size());
  std::vector<bool> seen(tensors.size());
  uint32_t bucket = 0;
  for (const size_t tensor : training.written) {
    EXPECT_FALSE(seen[tensor]) << tensors[tensor].name;
    seen[tensor] = true;
    EXPECT_GE(tensors[tensor].bucket, bucket);
    bucket = tensors[tensor].bucket;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
