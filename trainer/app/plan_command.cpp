#include <cstdio>

#include "trainer/app/commands.hpp"
#include "trainer/app/config_file.hpp"
#include "trainer/train/lane_engine.hpp"

namespace pitcrew::trainer {

int run_plan(const std::string& path, const std::vector<std::string>& sets, uint32_t ranks) {
  const auto config = load_config(path, sets);
  if (!config) {
    std::fprintf(stderr, "pitcrew-train: %s\n", config.error().message.c_str());
    return exit_code::kBadConfiguration;
  }
  const auto plan = LanePlan::make(config->sequences, config->micro, ranks);
  if (!plan) {
    std::fprintf(stderr, "pitcrew-train: %s\n", plan.error().message.c_str());
    return exit_code::kBadConfiguration;
  }
  CpuDevice device({});
  const auto kernels = create_cpu_kernels<float>(device);
  const auto model = Model<float>::create(config->model, {config->micro, config->tokens}, device, *kernels);
  if (!model) {
    std::fprintf(stderr, "pitcrew-train: %s\n", model.error().message.c_str());
    return exit_code::kBadConfiguration;
  }
  const uint64_t parameters = config->model.parameters();
  const uint64_t buffers = LaneEngine::gradient_buffers(*plan, 0);
  const double mb = 1e6;
  const double state = static_cast<double>(parameters) * 4 * 3,
               gradients = static_cast<double>(parameters * 4 * buffers);
  const auto activations = static_cast<double>((*model)->activation_bytes());
  std::printf("fingerprint        %s\n", run_hash(*config).c_str());
  std::printf("parameters         %llu\n", static_cast<unsigned long long>(parameters));
  std::printf("tokens per step    %llu in %u lanes, at most %u per rank\n",
              static_cast<unsigned long long>(config->tokens_per_step()), plan->lanes(), plan->micro_steps());
  std::printf("GFLOP per step     %.2f\n",
              config->model.flops_per_token(config->tokens) * static_cast<double>(config->tokens_per_step()) / 1e9);
  std::printf("memory per rank    %.1f MB: weights and moments %.1f, gradients %.1f (%llu buffers), activations %.1f\n",
              (state + gradients + activations) / mb, state / mb, gradients / mb,
              static_cast<unsigned long long>(buffers), activations / mb);
  std::printf("checkpoint         %.1f MB\n", state / mb);
  return exit_code::kDone;
}

}  // namespace pitcrew::trainer
