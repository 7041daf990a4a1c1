#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "lib/base/environment.hpp"
#include "lib/base/random.hpp"
#include "trainer/app/commands.hpp"
#include "trainer/app/trained_model.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer {
namespace {

Result<std::vector<int32_t>> read_prompt(const std::string& prompt, bool bytes, uint32_t vocabulary) {
  std::vector<int32_t> tokens;
  if (bytes) {
    for (const char c : prompt) tokens.push_back(static_cast<unsigned char>(c));
  } else {
    for (const char* at = prompt.data(); at < prompt.data() + prompt.size();) {
      int32_t token = 0;
      const auto [end, error] = std::from_chars(at, prompt.data() + prompt.size(), token);
      if (error != std::errc() || token < 0 || static_cast<uint32_t>(token) >= vocabulary) {
        return Error(Code::kInvalidArgument,
                     "--prompt: this model was trained on token files: give token numbers below " +
                         std::to_string(vocabulary) + " with commas between them");
      }
      tokens.push_back(token);
      at = end + (end < prompt.data() + prompt.size() && *end == ',' ? 1 : 0);
    }
  }
  if (tokens.empty()) return Error(Code::kInvalidArgument, "--prompt must not be empty");
  return tokens;
}

int32_t choose(std::span<const float> logits, double temperature, Random& random) {
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<int32_t>(likeliest - logits.begin());
  std::vector<double> weights;
  double sum = 0;
  for (const float logit : logits)
    sum += weights.emplace_back(std::exp((static_cast<double>(logit) - *likeliest) / temperature));
  double left = random.uniform() * sum;
  for (size_t i = 0; i < weights.size(); ++i) {
    if ((left -= weights[i]) < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(likeliest - logits.begin());
}

Status generate(const SampleOptions& options) {
  PITCREW_ASSIGN(const TrainedModel trained, load_trained_model(options.checkpoint));
  const ModelConfig& config = trained.config;
  const Json& run = trained.run;
  const bool bytes = run.value("/data/kind"_json_pointer, "text") == "text";
  PITCREW_ASSIGN(std::vector<int32_t> tokens, read_prompt(options.prompt, bytes, config.tokens()));

  CpuDevice device({.threads = options.threads});
  const auto kernels = create_cpu_kernels<float>(device);
  PITCREW_ASSIGN(const auto model, Model<float>::create(config, {1, config.context}, device, *kernels));
  PITCREW_ASSIGN(const auto state, ModelState<float>::create(config, device));
  std::copy(trained.params.begin(), trained.params.end(), state.params());
  PITCREW_ASSIGN(const Buffer window, device.allocate("tokens", config.context * sizeof(int32_t)));
  PITCREW_ASSIGN(const Buffer logits, device.allocate("logits", config.vocab * sizeof(float)));
  const auto stream = device.create_stream("compute");

  Random random(options.seed);
  if (bytes) std::fwrite(options.prompt.data(), 1, options.prompt.size(), stdout);
  for (uint32_t i = 0; i < options.tokens; ++i) {
    const auto count = static_cast<uint32_t>(std::min<size_t>(tokens.size(), config.context));
    stream->copy(window.data(), tokens.data() + tokens.size() - count, count * sizeof(int32_t));
    model->logits(*stream, state.params(), window.as<int32_t>(), count, logits.as<float>());
    stream->synchronize();
    const int32_t next = choose({logits.as<float>(), config.tokens()}, options.temperature, random);
    // A document's end.
    if (bytes && next == 0) break;
    tokens.push_back(next);
    if (bytes) {
      std::fputc(next, stdout);
    } else {
      std::printf("%s%d", i == 0 ? "" : ",", next);
    }
    std::fflush(stdout);
  }
  std::fputc('\n', stdout);
  return {};
}

}  // namespace

int run_sample(const SampleOptions& options) {
  const Status done = generate(options);
  if (done) return exit_code::kDone;
  std::fprintf(stderr, "pitcrew-train sample: %s\n", done.error().message.c_str());
  return done.error().code == Code::kDataLoss ? exit_code::kBadData : exit_code::kBadConfiguration;
}

}  // namespace pitcrew::trainer
