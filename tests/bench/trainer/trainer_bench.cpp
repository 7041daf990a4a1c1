// Training steps on demand, for compare_pytorch.py to time them in turns with PyTorch's:
//   pitcrew-trainer-bench THREADS SEQUENCES TOKENS MODEL-JSON
// For each number n read from stdin it runs n steps (forward, backward, norm, AdamW) and prints "<seconds> <mean loss
// of the last>".
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "lib/base/json.hpp"
#include "lib/base/random.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer {
namespace {

Status serve(unsigned threads, LaneShape shape, const std::string& model_json) {
  PITCREW_ASSIGN(const Json json, parse_json(model_json));
  PITCREW_ASSIGN(const ModelConfig config, model_config_from_json(json));
  CpuDevice device({.threads = threads});
  const auto kernels = create_cpu_kernels<float>(device);
  const auto stream = device.create_stream("compute");
  PITCREW_ASSIGN(auto state, ModelState<float>::create(config, device));
  PITCREW_ASSIGN(const auto gradients, state.create_gradients(device, "gradients"));
  PITCREW_ASSIGN(const auto model, Model<float>::create(config, shape, device, *kernels));
  state.init(*kernels, *stream, 1);
  Random random(1);
  std::vector<int32_t> tokens(shape.sequences * (size_t{shape.tokens} + 1));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(config.vocab));

  std::fprintf(stderr, "%llu parameters, %llu MB of activations, %s\n",
               static_cast<unsigned long long>(config.parameters()),
               static_cast<unsigned long long>(model->activation_bytes() >> 20), device.numerics().c_str());
  double loss = 0, square_sum = 0;
  GradientSummary summary;
  uint64_t step = 0;
  for (int steps; std::cin >> steps;) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t processor = std::clock();
    for (int i = 0; i < steps; ++i) {
      model->forward_backward(*stream, state.params(), tokens.data(), shape, gradients.as<float>(),
                              Gradients::kOverwrite, 1, &loss);
      kernels->enqueue(
          *stream, SquareSum<float>{.elements = state.flat_elements(), .x = gradients.as<float>(), .sum = &square_sum});
      kernels->enqueue(*stream, Summarize{.square_sum = &square_sum,
                                          .tokens = static_cast<double>(shape.predictions()),
                                          .max_norm = 1,
                                          .out = &summary});
      state.adamw(*kernels, *stream, gradients.as<float>(), &summary, {}, ++step);
      stream->synchronize();
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%.6f %.6f %.6f\n", seconds.count(), static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC,
                loss / static_cast<double>(shape.predictions()));
    std::fflush(stdout);
  }
  return {};
}

}  // namespace
}  // namespace pitcrew::trainer

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: pitcrew-trainer-bench THREADS SEQUENCES TOKENS MODEL-JSON\n");
    return 64;
  }
  const auto number = [&](int i) { return static_cast<uint32_t>(std::strtoul(argv[i], nullptr, 10)); };
  const auto status = pitcrew::trainer::serve(number(1), {number(2), number(3)}, argv[4]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return 1;
}
