// What a node agent's /metrics would show of a machine with eight GPUs, made by the agent's own metrics from readings
// that are written here: dashboards are tried on it where there is no such machine.
//
//   dashboards_agent_page NODE SECONDS [POD]    SECONDS since the start: counters grow with them. POD uses the GPUs.
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "agent/metrics/agent_metrics.hpp"
#include "agent/metrics/description.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"

namespace {

using namespace pitcrew;

constexpr int kGpus = 8;
constexpr char kBroken[] = "n3";  // the node that has lost a GPU

// A plausible number of the row, at this time and on this device.
double value_of(const agent::MetricRow& row, double seconds, int device) {
  const double wave = std::sin(seconds / 20 + device);
  struct Known {
    std::string_view name;
    double middle;
    double swing;
  };
  static constexpr Known kKnown[] = {{"DCGM_FI_DEV_GPU_TEMP", 61, 4},
                                     {"DCGM_FI_DEV_POWER_USAGE", 610, 50},
                                     {"DCGM_FI_DEV_GPU_UTIL", 96, 3},
                                     {"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.41, 0.04},
                                     {"DCGM_FI_DEV_FB_TOTAL", 143771.0 * 1048576, 0},
                                     {"DCGM_FI_DEV_FB_USED", 118000.0 * 1048576, 2e9},
                                     {"pitcrew_lustre_wait_seconds", 0.004, 0.002}};
  for (const Known& known : kKnown) {
    if (known.name == row.name) return known.middle + known.swing * wave;
  }
  const bool bytes = row.name.find("bytes") != std::string_view::npos;
  if (row.type == agent::MetricType::kCounter) {
    if (row.name.find("retransmitted") != std::string_view::npos) return std::floor(seconds * (3 + device));
    return std::floor(seconds * (bytes ? 11e9 : 100) * (1 + 0.1 * device));
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string node = argv[1];
  const double seconds = std::atof(argv[2]);
  const bool broken = node == kBroken && seconds > 10;
  const RealClock clock;
  agent::AgentMetrics metrics(clock);
  metrics.set_node(node);
  std::map<std::string, agent::GpuUser> users;
  for (unsigned gpu = 0; gpu < kGpus; ++gpu) {
    const std::string uuid = "GPU-" + node + "-" + std::to_string(gpu);
    metrics.set_gpu(uuid, {gpu, "0000:" + std::to_string(10 + gpu) + ":00.0", "NVIDIA H200", "580.65.06"});
    if (argc > 3) users[uuid] = {"default", argv[3], "train", "watched"};
  }
  metrics.set_users(users);
  // Rows of one kind are one reading of a device.
  std::map<std::pair<std::string, std::string>, agent::Observation> readings;
  for (const agent::MetricRow& row : agent::metric_rows()) {
    if (row.kind.empty() || row.value.find(',') != std::string_view::npos) continue;
    const bool of_gpus = agent::device_label(row.kind).empty() && row.kind != "gpu.count";
    const bool of_node = row.kind == "gpu.count" || row.kind.ends_with(".count") || row.kind.starts_with("node.") ||
                         row.kind == "clock" || row.kind == "versions";
    for (int device = 0; device < (of_gpus ? kGpus : of_node ? 1 : 2); ++device) {
      const std::string name = of_gpus   ? "GPU-" + node + "-" + std::to_string(device)
                               : of_node ? ""
                                         : std::string(row.kind.substr(0, row.kind.find('.'))) + std::to_string(device);
      agent::Observation& one = readings[{std::string(row.kind), name}];
      one.kind = row.kind;
      one.device = name;
      one.reading = true;
      one.time = clock.now();
      double value = value_of(row, seconds, device);
      if (row.name == "pitcrew_gpu_count") value = broken ? kGpus - 1 : kGpus;
      if (row.name == "pitcrew_gpu_expected") value = kGpus;
      one.values[std::string(row.value)] = value;
    }
  }
  for (const auto& [key, one] : readings) metrics.observed(one);
  agent::Observation missing = readings[{"gpu.count", ""}];
  missing.values["missing"] = broken ? 1.0 : 0.0;
  metrics.observed(missing);
  if (broken) {
    agent::Observation xid;
    xid.kind = agent::kinds::kXid;
    xid.code = 79;
    xid.device = "GPU-" + node + "-5";
    xid.time = clock.now();
    for (int i = 0; i < static_cast<int>(seconds / 10); ++i) metrics.observed(xid);
  }
  std::vector<agent::Verdict> verdicts;
  if (broken) {
    agent::Verdict verdict;
    verdict.rule = "xid-79";
    verdict.device = "GPU-" + node + "-5";
    verdict.severity = api::HealthSeverity::kFault;
    verdict.action = api::HealthAction::kReplace;
    verdicts.push_back(verdict);
  }
  metrics.judged({}, verdicts);
  metrics.set_actor([broken] {
    agent::ActorNumbers numbers;
    numbers.cordons = broken ? 1 : 0;
    numbers.quarantined = broken;
    return numbers;
  });
  std::cout << net::metrics_text(*metrics.registry());
  return 0;
}
