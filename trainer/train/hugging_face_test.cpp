#include "trainer/train/hugging_face.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"
#include "trainer/checkpoint/safetensors.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer::hugging_face {
namespace {

std::string golden(const std::string& name) {
  return std::string(PITCREW_SOURCE_DIR) + "/tests/goldens/hugging_face/" + name;
}

// The tensors of a safetensors file.
struct Tensors {
  explicit Tensors(const std::string& path)
      : bytes(*read_file(posix_file_system(), path, 1 << 24)),
        header(*safetensors::decode_header(bytes.substr(0, *safetensors::header_length(bytes.substr(0, 8))),
                                           bytes.size())) {}
  template <typename T>
  std::vector<T> tensor(const std::string& name) const {
    for (const auto& entry : header.entries) {
      if (entry.name != name) continue;
      std::vector<T> values((entry.end - entry.begin) / sizeof(T));
      std::memcpy(values.data(), bytes.data() + header.header_bytes + entry.begin, entry.end - entry.begin);
      return values;
    }
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  std::string bytes;
  safetensors::Header header;
};

// An imported model that computes logits. T: float, or BF16 by its CPU twins.
template <typename T>
struct Imported {
  Imported(const std::string& folder, const ModelConfig& config)
      : config(config),
        device({.threads = 1}),
        kernels(create_cpu_kernels<T>(device)),
        stream(device.create_stream("compute")),
        state(std::move(*ModelState<T>::create(config, device))),
        model(std::move(*Model<T>::create(config, {1, 48}, device, *kernels))) {
    const Status read =
        read_weights(posix_file_system(), folder, config, state.layout(), {state.params(), state.flat_elements()});
    EXPECT_TRUE(read.ok()) << read.error().message;
    state.publish(*kernels, *stream);
  }
  std::vector<T> logits(const std::vector<int32_t>& tokens, size_t count) {
    std::vector<T> values(config.vocab);
    model->logits(*stream, state.weights(), tokens.data(), static_cast<uint32_t>(count), values.data());
    stream->synchronize();
    return values;
  }
  ModelConfig config;
  CpuDevice device;
  std::unique_ptr<Kernels<T>> kernels;
  std::unique_ptr<Stream> stream;
  ModelState<T> state;
  std::unique_ptr<Model<T>> model;
};

template <typename T>
double distance_from(Imported<T>& model, const Tensors& expected) {
  const auto tokens = expected.tensor<int32_t>("tokens");
  const auto logits = expected.tensor<float>("logits");
  const size_t vocab = model.config.tokens(), prompt = logits.size() / vocab;
  double difference = 0, norm = 0;
  for (size_t t = 0; t < prompt; ++t) {
    const auto found = model.logits(tokens, t + 1);
    for (size_t i = 0; i < vocab; ++i) {
      const double value = static_cast<float>(found[i]), wanted = logits[t * vocab + i];
      difference += (value - wanted) * (value - wanted);
      norm += wanted * wanted;
    }
  }
  return std::sqrt(difference / norm);
}

class AgainstTransformers : public testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return golden(GetParam()); }
  ModelConfig config() const {
    const auto read = read_config(posix_file_system(), folder());
    EXPECT_TRUE(read.ok()) << read.error().message;
    return *read;
  }
};
INSTANTIATE_TEST_SUITE_P(HuggingFace, AgainstTransformers, testing::Values("gpt2", "llama3", "qwen2", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(AgainstTransformers, logits_agree_and_greedy_tokens_are_equal) {
  Imported<float> model(folder(), config());
  const Tensors expected(folder() + "/expected.safetensors");
  EXPECT_LT(distance_from(model, expected), 1e-4);
  const auto tokens = expected.tensor<int32_t>("tokens");
  const size_t prompt = expected.tensor<float>("logits").size() / config().vocab;
  ASSERT_GT(tokens.size(), prompt);
  std::vector<int32_t> made(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(prompt));
  while (made.size() < tokens.size()) {
    const auto logits = model.logits(made, made.size());
    made.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  EXPECT_EQ(made, tokens);
}

TEST_P(AgainstTransformers, bf16_logits_are_near) {
  Imported<BF16> model(folder(), config());
  EXPECT_LT(distance_from(model, Tensors(folder() + "/expected.safetensors")), 2e-2);
}

TEST_P(AgainstTransformers, a_padded_vocabulary_changes_no_logit) {
  ModelConfig padded = config();
  padded.vocab_used = padded.vocab;
  padded.vocab = 128;
  Imported<float> model(folder(), padded);
  EXPECT_LT(distance_from(model, Tensors(folder() + "/expected.safetensors")), 1e-4);
}

TEST_P(AgainstTransformers, what_is_exported_is_what_was_imported_to_the_bit) {
  const TempFolder out;
  Imported<float> model(folder(), config());
  const std::span<const float> params(model.state.params(), model.state.flat_elements());
  ASSERT_TRUE(write_model(posix_file_system(), out.path(), config(), model.state.layout(), params, DType::kF32).ok());
  EXPECT_EQ(*read_config(posix_file_system(), out.path()), config());
  const Tensors theirs(folder() + "/model.safetensors"), ours(out.path() + "/model.safetensors");
  ASSERT_EQ(ours.header.entries.size(), theirs.header.entries.size());
  for (const auto& entry : theirs.header.entries) {
    EXPECT_EQ(ours.tensor<uint32_t>(entry.name), theirs.tensor<uint32_t>(entry.name)) << entry.name;
  }
  // Half as many bytes, and a rounding away.
  ASSERT_TRUE(write_model(posix_file_system(), out.path(), config(), model.state.layout(), params, DType::kBF16).ok());
  Imported<float> rounded(out.path(), config());
  for (size_t i = 0; i < params.size(); ++i) EXPECT_EQ(rounded.state.params()[i], static_cast<float>(BF16(params[i])));
}

class HuggingFaceErrors : public testing::Test {
 protected:
  void copy(const std::string& name) {
    std::filesystem::copy(golden(name), folder_.path(), std::filesystem::copy_options::recursive);
  }
  void replace_in_config(const std::string& from, const std::string& to) {
    const std::string path = folder_.path() + "/config.json";
    std::string text = *read_file(posix_file_system(), path, 1 << 20);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    std::ofstream(path) << text;
  }
  std::string config_error() {
    const auto config = read_config(posix_file_system(), folder_.path());
    return config.ok() ? "" : config.error().message;
  }
  std::string weights_error(const ModelConfig& config) {
    const ParameterLayout layout = parameter_layout<float>(config);
    std::vector<float> params(layout.flat_elements<float>());
    const Status read = read_weights(posix_file_system(), folder_.path(), config, layout, params);
    return read.ok() ? "" : read.error().message;
  }
  TempFolder folder_;
};

TEST_F(HuggingFaceErrors, what_this_trainer_has_not_is_named) {
  copy("llama3");
  replace_in_config("\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\"");
  EXPECT_NE(config_error().find("rope_scaling is 'yarn', not llama3"), std::string::npos) << config_error();
  replace_in_config("\"model_type\": \"llama\"", "\"model_type\": \"mamba\"");
  EXPECT_NE(config_error().find("model_type is 'mamba'"), std::string::npos) << config_error();
}

TEST_F(HuggingFaceErrors, weights_of_another_model_are_refused_by_tensor_and_shape) {
  copy("qwen3");
  ModelConfig config = *read_config(posix_file_system(), folder_.path());
  config.mlp = 64;
  EXPECT_NE(weights_error(config).find("mlp.gate_proj.weight is 56x32, the configuration wants 64x32"),
            std::string::npos)
      << weights_error(config);
  config.mlp = 56;
  config.qk_norm = false;
  EXPECT_NE(weights_error(config).find("k_norm.weight has no place in the configured model"), std::string::npos)
      << weights_error(config);
  config.qk_norm = true;
  config.layers = 3;
  EXPECT_NE(weights_error(config).find("there is no tensor model.layers.2."), std::string::npos)
      << weights_error(config);
}

TEST_F(HuggingFaceErrors, a_file_cut_short_is_damaged) {
  copy("gpt2");
  const ModelConfig config = *read_config(posix_file_system(), folder_.path());
  std::filesystem::resize_file(folder_.path() + "/model.safetensors", 50'000);
  EXPECT_NE(weights_error(config).find("model.safetensors"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::trainer::hugging_face
