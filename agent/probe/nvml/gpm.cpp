#include "agent/probe/nvml/gpm.hpp"

#include <utility>

namespace pitcrew::agent::nvml {
namespace {

using F = Library::Functions;

constexpr double kPercent = 0.01;
constexpr double kMebibytes = 1024 * 1024;

// NVML's numbers of its metrics (nvmlGpmMetricId_t), and what their units are here.
constexpr struct {
  unsigned id;
  const char* name;
  double scale;
} kMetrics[] = {
    {1, "graphics", kPercent},   {2, "sm", kPercent},           {3, "occupancy", kPercent},
    {5, "tensor", kPercent},     {10, "dram", kPercent},        {20, "pcie_tx", kMebibytes},
    {21, "pcie_rx", kMebibytes}, {60, "nvlink_rx", kMebibytes}, {61, "nvlink_tx", kMebibytes},
};

bool absent(int code) {
  return code == abi::kNotSupported || code == abi::kFunctionNotFound || code == abi::kInvalidArgument;
}

}  // namespace

Activity::~Activity() { free_all(); }

void Activity::free_all() {
  for (auto& [uuid, samples] : samples_) {
    for (void* sample : {samples.before, samples.after}) {
      if (sample != nullptr) library_->call(&F::gpm_sample_free, sample);
    }
  }
  samples_.clear();
}

Result<std::vector<Observation>> Activity::look(const std::shared_ptr<const Library>& library, Instant now) {
  if (library != library_) {
    free_all();
    library_ = library;
  }
  std::vector<Observation> out;
  PITCREW_ASSIGN(const std::vector<Gpu> gpus, list_gpus(*library));
  for (const Gpu& gpu : gpus) {
    if (gpu.lost || gpu.uuid.empty()) continue;
    abi::GpmSupport support{.version = 1, .supported = 0};
    int code = library->call(&F::gpm_support, gpu.device, &support);
    if (absent(code) || (code == abi::kSuccess && support.supported == 0) || code == abi::kGpuIsLost) continue;
    if (code != abi::kSuccess) return error_of("nvmlGpmQueryDeviceSupport", code).with_context(gpu.uuid);
    Samples& samples = samples_[gpu.uuid];
    for (void** sample : {&samples.before, &samples.after}) {
      if (*sample != nullptr) continue;
      code = library->call(&F::gpm_sample_alloc, sample);
      if (code != abi::kSuccess) return error_of("nvmlGpmSampleAlloc", code).with_context(gpu.uuid);
    }
    code = library->call(&F::gpm_sample_get, gpu.device, samples.after);
    if (absent(code) || code == abi::kGpuIsLost) continue;
    if (code != abi::kSuccess) return error_of("nvmlGpmSampleGet", code).with_context(gpu.uuid);
    const bool first = !std::exchange(samples.taken, true);
    std::swap(samples.before, samples.after);
    if (first) continue;
    abi::GpmMetrics metrics{};
    metrics.version = 1;
    metrics.count = std::size(kMetrics);
    metrics.before = samples.after;  // swapped just now: this is the older one
    metrics.after = samples.before;
    for (size_t i = 0; i < std::size(kMetrics); ++i) metrics.metrics[i].id = kMetrics[i].id;
    code = library->call(&F::gpm_metrics_get, &metrics);
    if (code != abi::kSuccess) return error_of("nvmlGpmMetricsGet", code).with_context(gpu.uuid);
    Observation observation;
    observation.kind = "gpu.activity";
    observation.device = gpu.uuid;
    observation.reading = true;
    observation.time = now;
    for (size_t i = 0; i < std::size(kMetrics); ++i) {
      if (metrics.metrics[i].code == abi::kSuccess) {
        observation.values[kMetrics[i].name] = metrics.metrics[i].value * kMetrics[i].scale;
      }
    }
    if (!observation.values.empty()) out.push_back(std::move(observation));
  }
  return out;
}

}  // namespace pitcrew::agent::nvml
