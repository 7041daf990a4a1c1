// Masters kept whole and in two halves: the same training, bit for bit.
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "lib/base/clock.hpp"
#include "lib/base/random.hpp"
#include "trainer/checkpoint/device_copier.hpp"
#include "trainer/checkpoint/testing.hpp"
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

// As a GPU: its memory is not the host's, and its copy stream is late.
class LateDevice final : public CpuDevice {
 public:
  LateDevice()
      : CpuDevice({.threads = 1, .before_work = [random = std::make_shared<Random>(7)](const std::string& stream) {
                     if (stream != "checkpoint") return;
                     for (uint64_t i = random->below(3); i > 0; --i) std::this_thread::yield();
                   }}) {}
  bool host_memory() const override { return false; }
};

// A training with its checkpoints in a folder.
struct Saved {
  Saved(Masters masters, const std::string& folder, double bounce, uint64_t epoch) {
    auto device = std::make_unique<LateDevice>();
    auto kernels = create_cpu_kernels<BF16>(*device);
    EngineSettings settings{tiny(), 16, *LanePlan::make(2, 1, 1), 0, {}};
    settings.masters = masters;
    settings.before_write = [this](size_t tensor) { checkpointer->hold_mutation(tensor); };
    engine = std::move(*LaneEngine::create<BF16>(std::move(settings), std::move(device), std::move(kernels)));
    const auto tensors = engine->state_tensors();
    uint64_t bytes = 0;
    for (const StateTensor& tensor : tensors) bytes += tensor.bytes();
    copier = std::move(
        *DeviceCopier::create(engine->device(), engine->stream(), engine->state_kernels(),
                              plan_snapshot(bytes, tensors.size(), 1, bounce, masters == Masters::kRemainder)));
    CheckpointerSettings at;
    at.checkpoint.path = folder;
    at.checkpoint.keep = 1000;
    at.job = {.uid = "job", .ns = "test", .name = "job"};
    at.epoch = EpochNumber(epoch);
    at.poison_released = true;
    CheckpointerServices services;
    services.clock = &clock;
    services.pause = [this](Duration time) { clock.advance(time); };
    services.copier = copier.get();
    checkpointer = std::move(*Checkpointer::open(at, services, tensors, {"config", "data", Json::object()}));
  }
  void step(uint64_t number) {
    Random random(number);
    std::vector<int32_t> tokens(2 * 17);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(70));
    EXPECT_TRUE(engine->compute(tokens).ok());
    engine->update(32, 1, INFINITY, {.learning_rate = 0.01}, number, [] {});
  }
  ManualClock clock;
  std::unique_ptr<LaneEngine> engine;
  std::unique_ptr<Copier> copier;
  std::unique_ptr<Checkpointer> checkpointer;
};

TEST(Masters, a_checkpoint_of_either_form_goes_on_in_the_other_bit_for_bit_and_no_save_is_torn) {
  const testing::TemporaryFolder folder;
  std::vector<std::vector<std::vector<float>>> states;  // after each step, of a run that nobody saves
  Training reference(Masters::kFloat);
  uint64_t done = 0;
  const auto advance = [&](Saved& saved, uint64_t until) {
    for (; done < until;) {
      ++done;
      saved.step(done);
      saved.checkpointer->begin(Step(done), Json::object(), {.durable = true});
      for (const SaveOutcome& outcome : saved.checkpointer->poll())
        EXPECT_NE(outcome.result, SaveOutcome::Result::kFailed) << outcome.message;
    }
    const Status finished = saved.checkpointer->finish(Step(done), Json::object());
    EXPECT_TRUE(finished) << finished.error().message;
  };
  for (uint64_t number = 1; number <= 12; ++number) {
    Random random(number);
    std::vector<int32_t> tokens(2 * 17);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(70));
    reference.step(tokens, number);
    states.push_back(reference.state());
  }
  uint64_t epoch = 0;
  for (const auto& [masters, bounce] : std::vector<std::pair<Masters, double>>{
           {Masters::kRemainder, 0.3}, {Masters::kFloat, 0.5}, {Masters::kRemainder, 0}, {Masters::kFloat, 1}}) {
    Saved saved(masters, folder.path(), bounce, ++epoch);
    const auto restored = saved.checkpointer->restore({});
    ASSERT_TRUE(restored) << restored.error().message;
    EXPECT_EQ(restored->has_value(), epoch > 1);
    if (!*restored) saved.engine->init(5);
    if (*restored) {
      EXPECT_EQ((*restored)->step.value, done);
    }
    saved.engine->publish();
    advance(saved, done + 3);
  }
  // Every checkpoint that was written, while the next step changed the state, is the state after its step.
  const auto found = list_checkpoints(posix_file_system(), folder.path());
  ASSERT_TRUE(found);
  ASSERT_GE(found->size(), 4u);
  for (const CheckpointSummary& checkpoint : *found) {
    const auto loaded = load_tensors(posix_file_system(), folder.at(checkpoint.name));
    ASSERT_TRUE(loaded) << loaded.error().message;
    const auto names = reference.engine->state_tensors();
    for (const LoadedTensor& tensor : loaded->tensors) {
      for (size_t t = 0; t < names.size(); ++t) {
        if (names[t].name != tensor.tensor.name) continue;
        EXPECT_EQ(std::memcmp(tensor.bytes.data(), states[checkpoint.step.value - 1][t].data(), tensor.bytes.size()), 0)
            << checkpoint.name << " " << names[t].name;
      }
    }
  }
}

}  // namespace
}  // namespace pitcrew::trainer
