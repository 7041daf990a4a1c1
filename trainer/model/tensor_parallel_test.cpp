// Models that tensor ranks share, as threads with a device each, beside the same model on one rank.
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "tests/contract/comm/comm_world.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"
#include "trainer/model/tensor_part.hpp"
#include "trainer/parallel/comm_tensor_group.hpp"

namespace pitcrew::trainer {
namespace {

// Parts of products are rounded before they are added: norm-wise a few units in the last place of what is added.
constexpr double kFloatTolerance = 2e-5;
constexpr double kDoubleTolerance = 1e-12;

// A vocabulary and a context that two and four ranks can't share evenly; heads that they can.
ModelConfig model(ModelKind kind) {
  return {.kind = kind,
          .layers = 2,
          .width = 18,
          .heads = 8,
          .kv_heads = kind == ModelKind::kLlama ? 4u : 8u,
          .mlp = 20,
          .vocab = 19,
          .context = 13,
          .tie_embeddings = kind == ModelKind::kGpt2,
          .own_head_width = kind == ModelKind::kLlama ? 6u : 0u};
}

struct Case {
  const char* name;
  ModelConfig config;
};

std::vector<Case> cases() {
  ModelConfig gpt2 = model(ModelKind::kGpt2), untied = gpt2, llama = model(ModelKind::kLlama), qwen2 = llama,
              qwen3 = llama;
  gpt2.width = untied.width = 24;
  untied.tie_embeddings = false;
  qwen2.qkv_bias = true;
  qwen2.vocab_used = 17;
  qwen2.tie_embeddings = true;
  qwen3.qk_norm = true;
  qwen3.vocab = 21;
  qwen3.vocab_used = 15;  // of four ranks the last has padding alone
  return {{"gpt2", gpt2}, {"gpt2_untied", untied}, {"llama", llama}, {"qwen2", qwen2}, {"qwen3", qwen3}};
}

constexpr LaneShape kShape{2, 12};

// Loss and gradients of the whole model, in the order of a single rank's parameters.
template <typename T>
struct Outcome {
  std::vector<double> losses;  // of each rank
  double evaluated = 0;
  std::vector<Wide<T>> initial, gradients;
};

template <typename T>
void make_interesting(ModelState<T>& state, const ParameterLayout& whole, uint64_t elements) {
  // Away from gains of 1 and biases of 0, where mistakes hide: the same numbers whoever holds them.
  Random random(3);
  std::vector<double> noise(elements);
  for (double& value : noise) value = 0.2 * (random.uniform() - 0.5);
  for (size_t i = 0; i < whole.parameters.size(); ++i) {
    const Parameter& parameter = state.layout().parameters[i];
    Wide<T>* values = state.params() + state.layout().template element<T>(state.layout().arena[parameter.slice]);
    const double* added = noise.data() + whole.template element<T>(whole.arena[whole.parameters[i].slice]);
    for_each_run(parameter.shape, parameter.cut, 0, held_elements(parameter.shape, parameter.cut),
                 [&](const CutRun& run) {
                   for (uint64_t j = 0; j < run.count; ++j) {
                     Wide<T>& value = values[run.held + j];
                     value = static_cast<Wide<T>>(value * (parameter.decay ? 8 : 1) + added[run.whole + j]);
                   }
                 });
  }
}

template <typename T>
Outcome<T> train_on(const ModelConfig& config, CommWorld* world, uint32_t ranks, Recompute recompute = {},
                    bool twice = false) {
  const ParameterLayout whole = parameter_layout<T>(config);
  const uint64_t elements = whole.template flat_elements<T>();
  Outcome<T> outcome{std::vector<double>(ranks), 0, std::vector<Wide<T>>(elements), std::vector<Wide<T>>(elements)};
  std::vector<int32_t> tokens;
  Random random(11);
  for (uint64_t i = 0; i < kShape.sequences * (uint64_t{kShape.tokens} + 1); ++i)
    tokens.push_back(static_cast<int32_t>(random.below(config.tokens())));

  const auto run = [&](Comm* comm) {
    CpuDevice device({.threads = 1});
    const auto kernels = create_cpu_kernels<T>(device);
    const auto group = comm != nullptr ? create_tensor_group(*comm, device) : nullptr;
    const TensorPlace place = group != nullptr ? group->place() : TensorPlace{};
    auto made = Model<T>::create(config, kShape, device, *kernels, recompute, group.get());
    auto state = ModelState<T>::create(config, device, Masters::kFloat, place);
    ASSERT_TRUE(made.ok() && state.ok()) << made.error().message;
    const auto stream = device.create_stream("compute");
    const auto gradients = state->create_gradients(device, "gradients");
    state->init(*kernels, *stream, 5);
    const auto collect = [&](const Wide<T>* values, std::vector<Wide<T>>& into) {
      for (size_t i = 0; i < whole.parameters.size(); ++i) {
        const Parameter& parameter = state->layout().parameters[i];
        if (parameter.replicated() && place.rank > 0) continue;
        const Wide<T>* from = values + state->layout().template element<T>(state->layout().arena[parameter.slice]);
        Wide<T>* to = into.data() + whole.template element<T>(whole.arena[whole.parameters[i].slice]);
        for_each_run(parameter.shape, parameter.cut, 0, held_elements(parameter.shape, parameter.cut),
                     [&](const CutRun& piece) { std::copy_n(from + piece.held, piece.count, to + piece.whole); });
      }
    };
    collect(state->params(), outcome.initial);
    make_interesting(*state, whole, elements);
    state->publish(*kernels, *stream);
    double evaluated = 0;
    auto* flat = gradients->template as<Wide<T>>();
    (*made)->forward_backward(*stream, state->weights(), tokens.data(), kShape, flat, Gradients::kOverwrite, 1,
                              &outcome.losses[place.rank]);
    if (twice) {
      (*made)->forward_backward(*stream, state->weights(), tokens.data(), kShape, flat, Gradients::kAdd, 1,
                                &outcome.losses[place.rank]);
    }
    (*made)->forward(*stream, state->weights(), tokens.data(), kShape, &evaluated);
    stream->synchronize();
    ASSERT_TRUE(group == nullptr || group->status().ok());
    EXPECT_EQ(evaluated, outcome.losses[place.rank]);
    if (place.rank == 0) outcome.evaluated = evaluated;
    collect(flat, outcome.gradients);
  };
  if (world == nullptr) {
    run(nullptr);
  } else {
    world->run([&](Comm& comm) { run(&comm); });
  }
  return outcome;
}

template <typename V>
double distance(const std::vector<V>& found, const std::vector<V>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(double{found[i]} - double{expected[i]}, 2);
    norm += double{expected[i]} * double{expected[i]};
  }
  return std::sqrt(difference / norm);
}

class TensorParallel : public testing::TestWithParam<Case> {
 protected:
  const ModelConfig& config() const { return GetParam().config; }
};
INSTANTIATE_TEST_SUITE_P(Models, TensorParallel, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

template <typename T>
void expect_close(const ModelConfig& config, double tolerance) {
  const Outcome<T> whole = train_on<T>(config, nullptr, 1);
  const ParameterLayout layout = parameter_layout<T>(config);
  for (const uint32_t ranks : {1u, 2u, 4u}) {
    MemoryWorld world(ranks, minutes(1));
    const Outcome<T> shared = train_on<T>(config, &world, ranks);
    EXPECT_EQ(shared.initial, whole.initial) << "the seed gives the same parameters to " << ranks << " ranks";
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ(shared.losses[rank], shared.losses[0]);
      EXPECT_NEAR(shared.losses[rank], whole.losses[0], tolerance * whole.losses[0]);
    }
    // Tensor by tensor, so that a small one isn't hidden by a large one.
    for (const Slice& slice : layout.arena.slices()) {
      const auto cut = [&](const std::vector<Wide<T>>& all) {
        const auto first = all.begin() + static_cast<ptrdiff_t>(layout.template element<T>(slice));
        return std::vector<Wide<T>>(first, first + static_cast<ptrdiff_t>(slice.elements));
      };
      EXPECT_LT(distance(cut(shared.gradients), cut(whole.gradients)), tolerance) << slice.name << ", " << ranks;
    }
  }
}

TEST_P(TensorParallel, losses_and_gradients_are_those_of_one_rank) {
  expect_close<double>(config(), kDoubleTolerance);
  expect_close<float>(config(), kFloatTolerance);
}

TEST_P(TensorParallel, bf16_is_as_near_as_bf16_comes) {
  const Outcome<BF16> whole = train_on<BF16>(config(), nullptr, 1);
  MemoryWorld world(2, minutes(1));
  const Outcome<BF16> shared = train_on<BF16>(config(), &world, 2);
  // Parts are rounded to 8 bits before they are added.
  EXPECT_NEAR(shared.losses[0], whole.losses[0], 1e-2 * whole.losses[0]);
  EXPECT_LT(distance(shared.gradients, whole.gradients), 3e-2);
}

TEST_P(TensorParallel, the_same_ranks_give_the_same_bits_on_every_backend_and_with_recompute) {
  for (const uint32_t ranks : {2u, 4u}) {
    MemoryWorld memory(ranks, minutes(1)), again(ranks, minutes(1));
    TcpWorld tcp(ranks, minutes(1));
    const Outcome<float> first = train_on<float>(config(), &memory, ranks);
    const Outcome<float> second =
        train_on<float>(config(), &again, ranks, {.norms = true, .activation = true, .block = true});
    const Outcome<float> third = train_on<float>(config(), &tcp, ranks, {.norms = true, .activation = true});
    EXPECT_EQ(second.losses, first.losses);
    EXPECT_EQ(third.losses, first.losses);
    EXPECT_EQ(second.gradients, first.gradients);
    EXPECT_EQ(third.gradients, first.gradients);
  }
}

TEST_P(TensorParallel, a_second_gradient_is_added) {
  MemoryWorld once(2, minutes(1)), twice(2, minutes(1));
  const Outcome<double> one = train_on<double>(config(), &once, 2);
  Outcome<double> two = train_on<double>(config(), &twice, 2, {}, true);
  for (double& value : two.gradients) value /= 2;
  EXPECT_LT(distance(two.gradients, one.gradients), kDoubleTolerance);
}

TEST(TensorPart, what_cannot_be_dealt_is_refused_with_a_remedy) {
  ModelConfig config = model(ModelKind::kLlama);
  const auto keys = tensor_part(config, 8);
  ASSERT_FALSE(keys.ok());
  EXPECT_NE(keys.error().message.find("model.kvHeads 4"), std::string::npos) << keys.error().message;
  EXPECT_NE(keys.error().message.find("a divisor of 4"), std::string::npos) << keys.error().message;
  const auto heads = tensor_part(config, 3);
  ASSERT_FALSE(heads.ok());
  EXPECT_NE(heads.error().message.find("model.heads 8"), std::string::npos) << heads.error().message;

  MemoryGroup group(2);
  const auto comm = group.take(0);
  CpuDevice device({.threads = 1});
  const auto kernels = create_cpu_kernels<float>(device);
  const auto tensor = create_tensor_group(*comm, device);
  const auto odd = Model<float>::create(config, {1, 11}, device, *kernels, {}, tensor.get());
  ASSERT_FALSE(odd.ok());
  EXPECT_NE(odd.error().message.find("choose batch.micro or batch.tokens"), std::string::npos) << odd.error().message;
}

TEST(TensorGroup, what_a_lost_peer_should_have_brought_is_not_a_number) {
  MemoryGroup group(2);
  const auto comm = group.take(0);
  group.kill(1);
  CpuDevice device({.threads = 1});
  const auto tensor = create_tensor_group(*comm, device);
  const auto stream = device.create_stream("compute");
  std::vector<float> mine = {1, 2}, all(4);
  tensor->all_gather(*stream, mine.data(), all.data(), 8);
  stream->synchronize();
  EXPECT_TRUE(std::isnan(all[0]) && std::isnan(all[3]));
  EXPECT_EQ(tensor->status().error().code, Code::kUnavailable);
  tensor->all_to_all(*stream, all.data(), mine.data(), 4);
  stream->synchronize();
  EXPECT_TRUE(std::isnan(mine[0]));
}

TEST(TensorCut, parts_of_one_grid_are_found_in_those_of_another) {
  const std::vector<uint64_t> shape = {7, 6};
  const std::vector<uint64_t> rows = {4, 3}, columns = {6};
  for (const auto& [axis, groups] : {std::pair{0u, rows}, std::pair{1u, columns}}) {
    for (const uint32_t from_count : {1u, 2u, 3u, 5u}) {
      for (const uint32_t to_count : {1u, 2u, 4u}) {
        std::vector<int> seen(42);
        for (uint32_t i = 0; i < from_count; ++i) {
          const TensorCut from{axis, groups, from_count, i};
          std::vector<uint64_t> whole(held_elements(shape, from));
          for_each_run(shape, from, 0, whole.size(), [&](const CutRun& run) {
            for (uint64_t e = 0; e < run.count; ++e) whole[run.held + e] = run.whole + e;
          });
          for (uint32_t j = 0; j < to_count; ++j) {
            const TensorCut to{axis, groups, to_count, j};
            std::vector<uint64_t> wanted(held_elements(shape, to));
            for_each_run(shape, to, 0, wanted.size(), [&](const CutRun& run) {
              for (uint64_t e = 0; e < run.count; ++e) wanted[run.held + e] = run.whole + e;
            });
            // In two steps, as a checkpoint's chunks come.
            const uint64_t half = whole.size() / 3;
            for (const auto& [first, count] : {std::pair{uint64_t{0}, half}, std::pair{half, whole.size() - half}}) {
              for_each_common_run(shape, from, first, count, to, [&](uint64_t a, uint64_t b, uint64_t n) {
                for (uint64_t e = 0; e < n; ++e) {
                  ASSERT_EQ(whole[a + e], wanted[b + e]);
                  ++seen[wanted[b + e]];
                }
              });
            }
          }
        }
        EXPECT_EQ(seen, std::vector<int>(42, 1)) << from_count << " to " << to_count;
      }
    }
  }
}

}  // namespace
}  // namespace pitcrew::trainer
