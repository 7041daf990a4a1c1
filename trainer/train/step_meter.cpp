#include "trainer/train/step_meter.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <unistd.h>

namespace pitcrew::trainer {
namespace {

constexpr double kSlower = 1.15;
constexpr double kMatters = 1e-3;  // seconds a step

constexpr const char* kNames[kStepParts] = {"data_wait_seconds", "compute_seconds", "exchange_seconds",
                                            "optimizer_seconds", "stall_seconds"};

double& of(StepTimes& times, StepPart part) { return times[static_cast<size_t>(part)]; }
double of(const StepTimes& times, StepPart part) { return times[static_cast<size_t>(part)]; }

double own(const StepTimes& times) {
  double sum = 0;
  for (const double time : times) sum += time;
  return sum - of(times, StepPart::kExchange);
}

double median(std::vector<double> values) {
  const size_t middle = (values.size() - 1) / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle), values.end());
  return values[middle];
}

uint64_t resident_bytes() {
  FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long long size = 0, resident = 0;
  const int read = std::fscanf(file, "%llu %llu", &size, &resident);
  std::fclose(file);
  return read == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace

std::optional<Straggler> find_straggler(const std::vector<StepTimes>& ranks, uint64_t steps) {
  if (ranks.size() < 2 || steps == 0) return std::nullopt;
  std::vector<double> times;
  for (const StepTimes& rank : ranks) times.push_back(own(rank) / static_cast<double>(steps));
  const auto slowest = std::max_element(times.begin(), times.end());
  const double usual = median(times);
  if (*slowest < kSlower * usual || *slowest - usual < kMatters) return std::nullopt;
  Straggler found;
  found.rank = static_cast<uint32_t>(slowest - times.begin());
  found.factor = usual > 0 ? *slowest / usual : 1;
  const StepTimes& its = ranks[found.rank];
  const auto ms = [&](StepPart part) { return 1000 * of(its, part) / static_cast<double>(steps); };
  char text[256];
  std::snprintf(text, sizeof text,
                "rank %u holds the others up: %.1f ms of its own a step where the median rank takes %.1f "
                "(data %.1f, computing %.1f, optimizer %.1f, checkpoints %.1f), over %llu steps",
                found.rank, 1000 * *slowest, 1000 * usual, ms(StepPart::kData), ms(StepPart::kCompute),
                ms(StepPart::kOptimizer), ms(StepPart::kStall), static_cast<unsigned long long>(steps));
  found.message = text;
  return found;
}

std::optional<double> peak_tflops(std::string_view gpu) {
  // Dense, without sparsity. NVIDIA's data sheets of each product.
  constexpr std::pair<std::string_view, double> kPeaks[] = {
      {"B300", 2250}, {"B200", 2250}, {"H200", 989.5}, {"H100 PCIe", 756}, {"H100", 989.5},
      {"A100", 312},  {"L40S", 362},  {"L4", 121},     {"A10G", 70},
  };
  for (const auto& [name, peak] : kPeaks) {
    if (gpu.find(name) != std::string_view::npos) return peak;
  }
  return std::nullopt;
}

void StepMeter::add(StepPart part, Duration time) { of(now_, part) += to_seconds(time); }

StepMeasure StepMeter::finish(double seconds, page::Writer& page) {
  StepMeasure measure;
  measure.seconds = seconds;
  measure.tokens_per_second = seconds > 0 ? settings_.tokens_per_step / seconds : 0;
  measure.data_wait = of(now_, StepPart::kData);
  measure.stall = of(now_, StepPart::kStall);
  measure.memory = settings_.memory != 0 ? settings_.memory : resident_bytes();
  if (settings_.peak_flops > 0)
    measure.mfu = measure.tokens_per_second * settings_.flops_per_token / settings_.peak_flops;
  for (size_t part = 0; part < kStepParts; ++part) page.set_gauge(kNames[part], now_[part]);
  page.set_gauge("tokens_per_second", measure.tokens_per_second);
  page.set_gauge("memory_bytes", static_cast<double>(measure.memory));
  if (measure.mfu) page.set_gauge("mfu", *measure.mfu);
  for (size_t part = 0; part < kStepParts; ++part) since_[part] += now_[part];
  now_ = {};
  ++steps_;
  return measure;
}

Result<std::optional<Straggler>> StepMeter::compare(uint64_t step, Comm& comm, page::Writer& page) {
  if (comm.size() < 2 || step % kCompareEvery != 0) return std::optional<Straggler>();
  std::vector<StepTimes> all(comm.size());
  PITCREW_TRY(comm.all_gather(std::as_bytes(std::span(&since_, 1)), std::as_writable_bytes(std::span(all))));
  const auto found = find_straggler(all, steps_);
  page.set_gauge("straggler", found && found->rank == comm.rank() ? found->factor : 1);
  since_ = {};
  steps_ = 0;
  return found;
}

}  // namespace pitcrew::trainer
