#include <cstdio>

#include "lib/base/environment.hpp"
#include "trainer/app/commands.hpp"
#include "trainer/app/config_file.hpp"
#include "trainer/train/memory_plan.hpp"
#include "trainer/train/traffic_plan.hpp"

namespace pitcrew::trainer {
namespace {

void print_traffic(const PlanRequest& request) {
  const auto plan = traffic_plan(request);
  if (!plan) return;
  const Machines machines;
  std::printf("sent per step      %.1f MB of weights and %.1f MB of gradients to shards, %.1f MB to replicas\n",
              plan->gathered / 1e6, plan->dealt / 1e6, plan->replicated / 1e6);
  if (request.grid.tensor > 1)
    std::printf("                   %.1f MB of activations to tensor ranks\n", plan->exchanged / 1e6);
  if (request.numbers != Numbers::kMixed) return;
  std::printf(
      "a model, not measured: %.0f TFLOP/s a GPU, %.0f GB/s to shards and tensor ranks, %.0f GB/s to replicas\n",
      machines.flops_per_second / 1e12, machines.node_bytes_per_second / 1e9, machines.network_bytes_per_second / 1e9);
  std::printf(
      "  computing %.1f ms, shards %.1f ms of which %.1f ms are not hidden, replicas %.1f ms of which %.1f ms are not, "
      "tensor ranks %.1f ms: %.1f ms a step, %.1f %% of it computing\n",
      1e3 * plan->compute_seconds, 1e3 * plan->shard_seconds, 1e3 * plan->exposed_seconds, 1e3 * plan->replica_seconds,
      1e3 * plan->exposed_replica_seconds, 1e3 * plan->tensor_seconds, 1e3 * plan->step_seconds(),
      100 * plan->efficiency());
}

Status print_plan(const PlanOptions& options) {
  PITCREW_ASSIGN(const TrainConfig config, load_config(options.config, options.sets));
  PITCREW_ASSIGN(const Grid grid, parse_grid(options.grid));
  PITCREW_ASSIGN(const LanePlan lanes,
                 LanePlan::make(config.sequences, config.micro, grid.data_ranks(), grid.shards, config.passes));
  PlanRequest request{config.model,
                      config.sequences,
                      config.micro,
                      config.tokens,
                      grid,
                      options.gpu ? Numbers::kMixed : Numbers::kFloat,
                      config.recompute};
  request.passes = config.passes;
  if (!config.checkpoint.path.empty()) request.bounce = config.bounce;
  request.device_pieces = config.device_pieces();
  const uint64_t available = options.memory_gb > 0 ? static_cast<uint64_t>(options.memory_gb * 1e9) : UINT64_MAX;
  PITCREW_ASSIGN(request, choose_attention(request, config.attention, config.master, available));
  PITCREW_ASSIGN(request, choose_masters(request, config.master, available));
  PITCREW_ASSIGN(const MemoryPlan plan, memory_plan(request));
  const uint64_t parameters = config.model.parameters();
  std::printf("fingerprint        %s\n", run_hash(config).c_str());
  std::printf("parameters         %llu\n", static_cast<unsigned long long>(parameters));
  std::printf("grid               %u ranks: %u replicas x %u shards x %u tensor, %s\n", grid.ranks(), grid.replicas,
              grid.shards, grid.tensor,
              !options.gpu                             ? "float"
              : request.masters == Masters::kRemainder ? "BF16 with masters as remainders"
                                                       : "BF16 with float masters");
  std::printf("tokens per step    %llu in %u lanes, at most %u per rank\n",
              static_cast<unsigned long long>(config.tokens_per_step()), lanes.lanes(), lanes.micro_steps());
  std::printf("GFLOP per step     %.2f (recomputing not counted)\n",
              config.model.flops_per_token(config.tokens) * static_cast<double>(config.tokens_per_step()) / 1e9);
  std::printf("memory per rank    %.1f MB\n", static_cast<double>(plan.bytes()) / 1e6);
  for (const MemoryPlan::Line& line : plan.lines) {
    std::printf("  %-32s %12.1f MB\n", line.what.c_str(), static_cast<double>(line.bytes) / 1e6);
  }
  std::printf("checkpoint         %.1f MB\n", static_cast<double>(parameters) * 4 * 3 / 1e6);
  if (grid.ranks() > 1) print_traffic(request);
  if (options.memory_gb > 0) {
    PITCREW_TRY(check_fits(request, available));
    std::printf("fits               in %.1f GB\n", options.memory_gb);
  }
  return {};
}

}  // namespace

int run_plan(const PlanOptions& options) {
  const Status printed = print_plan(options);
  if (printed) return exit_code::kDone;
  std::fprintf(stderr, "pitcrew-train: %s\n", printed.error().message.c_str());
  return exit_code::kBadConfiguration;
}

}  // namespace pitcrew::trainer
