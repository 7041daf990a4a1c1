#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "lib/base/json.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer {
namespace {

// A file of tests/goldens: safetensors, read without checks since it is ours.
struct Golden {
  explicit Golden(const std::string& name) {
    std::ifstream file(std::string(PITCREW_SOURCE_DIR) + "/tests/goldens/" + name + ".safetensors", std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    bytes = text.str();
    uint64_t length;
    std::memcpy(&length, bytes.data(), sizeof length);
    header = *parse_json(std::string_view(bytes).substr(8, length));
    data = 8 + length;
  }
  template <typename T>
  std::vector<T> tensor(const std::string& name) const {
    const auto& offsets = header.at(name).at("data_offsets");
    std::vector<T> values((offsets[1].get<size_t>() - offsets[0].get<size_t>()) / sizeof(T));
    std::memcpy(values.data(), bytes.data() + data + offsets[0].get<size_t>(), values.size() * sizeof(T));
    return values;
  }
  std::string text(const std::string& key) const { return header.at("__metadata__").at(key); }
  double number(const std::string& key) const { return std::stod(text(key)); }

  std::string bytes;
  Json header;
  size_t data = 0;
};

double norm_of(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += double{value} * value;
  return std::sqrt(sum);
}

class AgainstPyTorch : public testing::TestWithParam<const char*> {
 protected:
  AgainstPyTorch()
      : golden(GetParam()),
        config(*model_config_from_json(*parse_json(golden.text("config")))),
        device({.threads = 2}),
        kernels(create_cpu_kernels<float>(device)),
        stream(device.create_stream("compute")),
        state(std::move(*ModelState<float>::create(config, device))),
        gradients(std::move(*state.create_gradients(device, "gradients"))),
        tokens(golden.tensor<int32_t>("tokens")) {
    const auto& extents = golden.header.at("tokens").at("shape");
    shape = {extents[0].get<uint32_t>(), extents[1].get<uint32_t>() - 1};
    model = std::move(*Model<float>::create(config, shape, device, *kernels));
    for (const Slice& slice : state.layout().arena.slices()) {
      const auto values = golden.tensor<float>("weight:" + slice.name);
      EXPECT_EQ(values.size(), slice.elements) << slice.name;
      std::memcpy(state.params() + slice.offset / sizeof(float), values.data(), slice.bytes());
    }
  }
  double step() {
    double loss = 0;
    model->forward_backward(*stream, state.params(), tokens.data(), shape, gradients.as<float>(), Gradients::kOverwrite,
                            1, &loss);
    stream->synchronize();
    return loss;
  }
  // Norm-wise per tensor: 1e-5 of the tensor's norm, and a floor of 1e-7 of the norm of all (a gradient that is zero
  // but for rounding, as a key's bias has, can't be compared with itself).
  void expect_close(const Arena& arena, const std::string& prefix, double tolerance) {
    double global = 0;
    for (const Slice& slice : arena.layout().slices())
      global += std::pow(norm_of(golden.tensor<float>(prefix + slice.name)), 2);
    global = std::sqrt(global);
    for (const Slice& slice : arena.layout().slices()) {
      const auto expected = golden.tensor<float>(prefix + slice.name);
      std::vector<float> difference(expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        difference[i] = arena.as<float>()[slice.offset / sizeof(float) + i] - expected[i];
      }
      EXPECT_LE(norm_of(difference), tolerance * norm_of(expected) + 1e-7 * global)
          << prefix << slice.name << ", norm " << norm_of(expected) << " of " << global;
    }
  }

  Golden golden;
  ModelConfig config;
  CpuDevice device;
  std::unique_ptr<Kernels<float>> kernels;
  std::unique_ptr<Stream> stream;
  ModelState<float> state;
  Arena gradients;
  std::vector<int32_t> tokens;
  LaneShape shape;
  std::unique_ptr<Model<float>> model;
};
INSTANTIATE_TEST_SUITE_P(Goldens, AgainstPyTorch, testing::Values("gpt2", "llama"));

TEST_P(AgainstPyTorch, loss_and_every_gradient_agree) {
  EXPECT_NEAR(step(), golden.number("loss"), 1e-6 * golden.number("loss"));
  expect_close(gradients, "gradient:", 1e-5);
}

TEST_P(AgainstPyTorch, three_clipped_steps_of_adamw_agree) {
  double square_sum;
  GradientSummary summary;
  const auto tokens_in_lane = static_cast<double>(shape.predictions());
  const Json losses = *parse_json(golden.text("losses"));
  for (uint64_t number = 1; number <= losses.size(); ++number) {
    EXPECT_NEAR(step() / tokens_in_lane, losses[number - 1].get<double>(), 2e-5);
    kernels->enqueue(
        *stream, SquareSum<float>{.elements = state.flat_elements(), .x = gradients.as<float>(), .sum = &square_sum});
    kernels->enqueue(*stream, Summarize{.square_sum = &square_sum,
                                        .tokens = tokens_in_lane,
                                        .max_norm = golden.number("maxNorm"),
                                        .out = &summary});
    state.adamw(*kernels, *stream, gradients.as<float>(), &summary,
                {.learning_rate = golden.number("learningRate"), .weight_decay = golden.number("weightDecay")}, number);
  }
  stream->synchronize();
  // AdamW divides by the root of the second moment, so where a gradient is rounding alone its sign decides the step:
  // the norm of all parameters is compared, not each.
  double difference = 0, norm = 0;
  for (const Slice& slice : state.layout().arena.slices()) {
    const auto expected = golden.tensor<float>("trained:" + slice.name);
    if (slice.name.ends_with("qkv.bias")) continue;  // a key's bias has no gradient but rounding
    for (size_t i = 0; i < expected.size(); ++i) {
      difference += std::pow(double{state.params()[slice.offset / sizeof(float) + i]} - expected[i], 2);
      norm += std::pow(expected[i], 2);
    }
  }
  EXPECT_LE(std::sqrt(difference), 1e-4 * std::sqrt(norm));
}

}  // namespace
}  // namespace pitcrew::trainer
