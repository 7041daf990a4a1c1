#include "trainer/model/model.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/json.hpp"
#include "lib/base/random.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"

namespace pitcrew::trainer {
namespace {

// Shapes that fit no vector: nothing here is a multiple of 8 but the number of heads' width.
ModelConfig small(ModelKind kind, bool tied) {
  return {.kind = kind,
          .layers = 2,
          .width = 18,
          .heads = 3,
          .kv_heads = kind == ModelKind::kLlama ? 1u : 3u,
          .mlp = 23,
          .vocab = 19,
          .context = 13,
          .tie_embeddings = tied};
}

struct Case {
  const char* name;
  ModelConfig config;
};

ModelConfig relative(bool bias, bool norm) {
  ModelConfig config = small(ModelKind::kLlama, norm);
  config.qkv_bias = bias;
  config.qk_norm = norm;
  config.own_head_width = 8;
  config.vocab_used = 17;
  config.rope_theta = 100;
  config.rope_scaling = {.factor = 4, .low_factor = 1, .high_factor = 4, .original_context = 32};
  return config;
}

std::vector<Case> cases() {
  return {{"gpt2", small(ModelKind::kGpt2, true)},    {"gpt2_untied", small(ModelKind::kGpt2, false)},
          {"llama", small(ModelKind::kLlama, false)}, {"llama_tied", small(ModelKind::kLlama, true)},
          {"qwen2", relative(true, false)},           {"qwen3", relative(false, true)}};
}

template <typename T>
struct Bench {
  Bench(const ModelConfig& config, LaneShape shape, unsigned threads = 2, Recompute recompute = {})
      : device({.threads = threads}),
        kernels(create_cpu_kernels<T>(device)),
        stream(device.create_stream("compute")),
        state(std::move(*ModelState<T>::create(config, device))),
        gradients(std::move(*state.create_gradients(device, "gradients"))),
        model(std::move(*Model<T>::create(config, shape, device, *kernels, recompute))),
        shape(shape) {
    state.init(*kernels, *stream, 5);
    Random random(11);
    for (uint64_t i = 0; i < shape.sequences * (uint64_t{shape.tokens} + 1); ++i) {
      tokens.push_back(static_cast<int32_t>(random.below(config.tokens())));
    }
    // Away from gains of 1 and biases of 0, where mistakes hide.
    for (const Parameter& parameter : state.layout().parameters) {
      const Slice& slice = state.layout().arena[parameter.slice];
      Wide<T>* values = state.params() + state.layout().template element<T>(slice);
      for (uint64_t i = 0; i < slice.elements; ++i) {
        values[i] = static_cast<Wide<T>>(values[i] * (parameter.decay ? 8 : 1) + 0.2 * (random.uniform() - 0.5));
      }
    }
    state.publish(*kernels, *stream);
    stream->synchronize();
  }
  double loss() {
    double loss = 0;
    model->forward(*stream, state.weights(), tokens.data(), shape, &loss);
    stream->synchronize();
    return loss;
  }
  double step(Gradients mode, double scale = 1) {
    double loss = 0;
    model->forward_backward(*stream, state.weights(), tokens.data(), shape, gradients.template as<Wide<T>>(), mode,
                            scale, &loss);
    stream->synchronize();
    return loss;
  }
  std::vector<Wide<T>> flat() const {
    const auto* data = gradients.template as<Wide<T>>();
    return {data, data + state.flat_elements()};
  }

  CpuDevice device;
  std::unique_ptr<Kernels<T>> kernels;
  std::unique_ptr<Stream> stream;
  ModelState<T> state;
  Arena gradients;
  std::unique_ptr<Model<T>> model;
  LaneShape shape;
  std::vector<int32_t> tokens;
};

class EveryModel : public testing::TestWithParam<Case> {
 protected:
  const ModelConfig& config() const { return GetParam().config; }
};
INSTANTIATE_TEST_SUITE_P(Model, EveryModel, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(EveryModel, every_gradient_agrees_with_finite_differences) {
  Bench<double> bench(config(), {2, 11}, 1);
  bench.step(Gradients::kOverwrite);
  const std::vector<double> gradients = bench.flat();
  constexpr double kStep = 1e-5;
  for (const Slice& slice : bench.state.layout().arena.slices()) {
    double* values = bench.state.params() + slice.offset / sizeof(double);
    double difference = 0, norm = 0;
    for (uint64_t i = 0; i < slice.elements; ++i) {
      const double value = values[i];
      values[i] = value + kStep;
      const double above = bench.loss();
      values[i] = value - kStep;
      const double below = bench.loss();
      values[i] = value;
      const double numeric = (above - below) / (2 * kStep);
      difference += std::pow(numeric - gradients[slice.offset / sizeof(double) + i], 2);
      norm += numeric * numeric;
    }
    EXPECT_GT(norm, 0) << slice.name;
    EXPECT_LT(std::sqrt(difference), 1e-5 * std::sqrt(norm) + 1e-8) << slice.name;
  }
}

TEST_P(EveryModel, gradients_are_added_or_overwritten_and_scaled) {
  Bench<double> bench(config(), {3, 13});
  const double loss = bench.step(Gradients::kOverwrite);
  const std::vector<double> once = bench.flat();
  EXPECT_EQ(bench.step(Gradients::kAdd), loss);
  const std::vector<double> twice = bench.flat();
  bench.step(Gradients::kOverwrite, 0.5);
  const std::vector<double> half = bench.flat();
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_NEAR(twice[i], 2 * once[i], 1e-12);
    EXPECT_NEAR(half[i], 0.5 * once[i], 1e-12);
  }
}

TEST_P(EveryModel, bits_do_not_depend_on_threads_nor_on_what_ran_before) {
  std::vector<float> first;
  for (const unsigned threads : {1u, 2u, 3u}) {
    Bench<float> bench(config(), {3, 13}, threads);
    bench.step(Gradients::kOverwrite);
    if (threads == 1) first = bench.flat();
    EXPECT_EQ(bench.flat(), first) << threads << " threads";
    bench.step(Gradients::kOverwrite);
    EXPECT_EQ(bench.flat(), first) << threads << " threads, again";
  }
}

TEST_P(EveryModel, what_is_computed_again_has_the_same_bits_in_less_memory) {
  Bench<float> whole(config(), {3, 13});
  const double loss = whole.step(Gradients::kOverwrite);
  uint64_t bytes = whole.model->activation_bytes();
  for (const Recompute recompute : {Recompute{.norms = true}, Recompute{.norms = true, .activation = true},
                                    Recompute{.norms = true, .activation = true, .block = true}}) {
    Bench<float> bench(config(), {3, 13}, 2, recompute);
    EXPECT_EQ(bench.step(Gradients::kOverwrite), loss);
    EXPECT_EQ(bench.flat(), whole.flat());
    EXPECT_LT(bench.model->activation_bytes(), bytes);
    bytes = bench.model->activation_bytes();
  }
}

// 8 bits of mantissa: a rounding is 2⁻⁹ at most, and they add up over some twenty operations in a row.
TEST_P(EveryModel, bf16_gradients_are_near_those_of_float) {
  Bench<float> exact(config(), {3, 13});
  Bench<BF16> rounded(config(), {3, 13});
  for (size_t i = 0; i < exact.state.flat_elements(); ++i) {
    exact.state.params()[i] = static_cast<float>(rounded.state.weights()[i]);
  }
  const double loss = exact.step(Gradients::kOverwrite);
  EXPECT_NEAR(rounded.step(Gradients::kOverwrite), loss, 1e-2 * loss);
  const auto expected = exact.flat(), found = rounded.flat();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(double{found[i]} - expected[i], 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 3e-2);
  rounded.step(Gradients::kAdd);
  const auto twice = rounded.flat();
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(twice[i], 2 * found[i], 1e-5 * (1 + std::abs(found[i])));
}

TEST_P(EveryModel, logits_of_a_prefix_give_the_loss) {
  Bench<double> bench(config(), {1, 13});
  double sum = 0;
  std::vector<double> logits(config().vocab);
  for (uint32_t t = 0; t < 13; ++t) {
    bench.model->logits(*bench.stream, bench.state.params(), bench.tokens.data(), t + 1, logits.data());
    bench.stream->synchronize();
    double total = 0;
    for (uint32_t token = 0; token < config().tokens(); ++token) total += std::exp(logits[token]);
    sum += std::log(total) - logits[static_cast<size_t>(bench.tokens[t + 1])];
  }
  EXPECT_NEAR(sum, bench.loss(), 1e-9 * sum);
}

TEST_P(EveryModel, adamw_learns_one_batch) {
  Bench<float> bench(config(), {2, 13});
  auto scratch = std::move(*bench.device.allocate("summary", sizeof(double) + sizeof(GradientSummary)));
  auto* square_sum = scratch.template as<double>();
  auto* summary = reinterpret_cast<GradientSummary*>(square_sum + 1);
  const double before = bench.loss();
  for (uint64_t step = 1; step <= 60; ++step) {
    bench.step(Gradients::kOverwrite);
    bench.kernels->enqueue(*bench.stream, SquareSum<float>{.elements = bench.state.flat_elements(),
                                                           .x = bench.gradients.template as<float>(),
                                                           .sum = square_sum});
    bench.kernels->enqueue(*bench.stream,
                           Summarize{.square_sum = square_sum, .tokens = 26, .max_norm = 1, .out = summary});
    bench.state.adamw(*bench.kernels, *bench.stream, bench.gradients.template as<float>(), summary,
                      {.learning_rate = 0.01, .weight_decay = 0.01}, step);
  }
  EXPECT_LT(bench.loss(), 0.3 * before);
}

TEST_P(EveryModel, a_gradient_that_is_not_finite_changes_nothing) {
  Bench<float> bench(config(), {1, 13});
  bench.step(Gradients::kOverwrite);
  bench.gradients.template as<float>()[3] = NAN;
  const std::vector<float> params(bench.state.params(), bench.state.params() + bench.state.flat_elements());
  double square_sum;
  GradientSummary summary;
  bench.kernels->enqueue(*bench.stream, SquareSum<float>{.elements = bench.state.flat_elements(),
                                                         .x = bench.gradients.template as<float>(),
                                                         .sum = &square_sum});
  bench.kernels->enqueue(*bench.stream,
                         Summarize{.square_sum = &square_sum, .tokens = 13, .max_norm = 1, .out = &summary});
  bench.state.adamw(*bench.kernels, *bench.stream, bench.gradients.template as<float>(), &summary, {}, 1);
  bench.stream->synchronize();
  EXPECT_EQ(summary.finite, 0u);
  EXPECT_EQ(std::vector<float>(bench.state.params(), bench.state.params() + bench.state.flat_elements()), params);
}

TEST_P(EveryModel, the_layout_holds_as_many_parameters_as_the_configuration_says) {
  uint64_t elements = 0;
  const ParameterLayout layout = parameter_layout<float>(config());
  for (const Slice& slice : layout.arena.slices()) elements += slice.elements;
  EXPECT_EQ(elements, config().parameters());
}

TEST(ModelState, lists_parameters_and_moments_for_checkpoints) {
  CpuDevice device({});
  const auto state = ModelState<float>::create(small(ModelKind::kLlama, false), device);
  ASSERT_TRUE(state.ok());
  const auto tensors = state->state_tensors();
  ASSERT_EQ(tensors.size(), 3 * state->layout().parameters.size());
  EXPECT_EQ(tensors.front().name, "embed.weight");
  EXPECT_EQ(tensors.back().name, "head.weight.v");
  EXPECT_EQ(tensors.front().shape, (std::vector<uint64_t>{19, 18}));
}

TEST(ModelConfig, defaults_are_filled_in_and_survive_a_round_trip) {
  const auto config = model_config_from_json(
      *parse_json(R"({"kind":"llama","layers":6,"width":256,"heads":8,"vocab":256,"context":256})"));
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->mlp, 704u);
  EXPECT_EQ(config->kv_heads, 8u);
  EXPECT_EQ(*model_config_from_json(to_json(*config)), *config);
}

TEST(ModelConfig, what_llamas_relatives_need_survives_a_round_trip) {
  for (const Case& each : cases()) EXPECT_EQ(*model_config_from_json(to_json(each.config)), each.config) << each.name;
  // A run that says nothing of it hashes as it did before these existed.
  EXPECT_EQ(to_json(small(ModelKind::kLlama, false)).size(), 11u);
}

TEST(ModelConfig, every_problem_is_named) {
  const auto config = model_config_from_json(
      *parse_json(R"({"kind":"llama","layers":6,"width":250,"heads":8,"vocab":256,"context":256,"kvHeads":3})"));
  ASSERT_FALSE(config.ok());
  EXPECT_NE(config.error().message.find("model.heads"), std::string::npos);
  EXPECT_NE(config.error().message.find("model.kvHeads"), std::string::npos);
  const auto unknown = model_config_from_json(*parse_json(R"({"kind":"bert","layer":6})"));
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message.find("model.layer"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::trainer
