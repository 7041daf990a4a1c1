#include "trainer/train/step_meter.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <unistd.h>

namespace pitcrew::trainer {
namespace {

constexpr double kSlower = 1.15;
constexpr double kMatters = 1e-3;  // seconds a step
constexpr double kRoundSeconds = 1;
constexpr size_t kMostRounds = 20;
// Of two ranks that are alike the same one is the slower in 18 of 20 rounds by chance once in 2,500 times.
constexpr size_t kFewestRounds = 8;
constexpr double kConsistent = 0.9;  // of the rounds

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

bool StragglerRule::Round::full() const { return steps >= kRoundSteps && seconds >= kRoundSeconds; }

void StragglerRule::add(const std::vector<StepTimes>& ranks, uint64_t steps) {
  if (ranks.size() < 2 || steps == 0) return;
  if (rounds_.empty() || rounds_.back().full()) rounds_.push_back({std::vector<StepTimes>(ranks.size()), 0, 0});
  Round& round = rounds_.back();
  double longest = 0;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (size_t part = 0; part < kStepParts; ++part) round.ranks[rank][part] += ranks[rank][part];
    longest = std::max(longest, own(ranks[rank]) + of(ranks[rank], StepPart::kExchange));
  }
  round.steps += steps;
  round.seconds += longest;
  if (rounds_.size() > kMostRounds) rounds_.pop_front();
}

std::optional<Straggler> StragglerRule::find() const {
  const size_t full = rounds_.size() - (rounds_.empty() || rounds_.back().full() ? 0 : 1);
  if (full < kFewestRounds) return std::nullopt;
  const size_t ranks = rounds_.front().ranks.size();
  std::vector<size_t> stood_out(ranks, 0);
  std::vector<double> usual(full);  // a step of each round's median rank, in seconds
  for (size_t i = 0; i < full; ++i) {
    std::vector<double> times;
    for (const StepTimes& rank : rounds_[i].ranks) times.push_back(own(rank) / static_cast<double>(rounds_[i].steps));
    usual[i] = median(times);
    const auto slowest = std::max_element(times.begin(), times.end());
    if (*slowest >= kSlower * usual[i] && *slowest - usual[i] >= kMatters)
      ++stood_out[static_cast<size_t>(slowest - times.begin())];
  }
  const auto most = std::max_element(stood_out.begin(), stood_out.end());
  if (static_cast<double>(*most) < kConsistent * static_cast<double>(full)) return std::nullopt;

  Straggler found;
  found.rank = static_cast<uint32_t>(most - stood_out.begin());
  std::vector<double> factors, its;
  StepTimes sum{};
  uint64_t steps = 0;
  for (size_t i = 0; i < full; ++i) {
    const StepTimes& times = rounds_[i].ranks[found.rank];
    its.push_back(own(times) / static_cast<double>(rounds_[i].steps));
    factors.push_back(usual[i] > 0 ? its.back() / usual[i] : 1);
    for (size_t part = 0; part < kStepParts; ++part) sum[part] += times[part];
    steps += rounds_[i].steps;
  }
  found.factor = median(factors);
  const auto ms = [&](StepPart part) { return 1000 * of(sum, part) / static_cast<double>(steps); };
  char text[320];
  std::snprintf(
      text, sizeof text,
      "rank %u holds the others up: %.1f ms of its own a step where the median rank takes %.1f "
      "(data %.1f, computing %.1f, optimizer %.1f, checkpoints %.1f), in %zu of the last %zu rounds, %llu steps",
      found.rank, 1000 * median(its), 1000 * median(usual), ms(StepPart::kData), ms(StepPart::kCompute),
      ms(StepPart::kOptimizer), ms(StepPart::kStall), *most, full, static_cast<unsigned long long>(steps));
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
  StepTimes& round = since_[std::min<size_t>(steps_ / StragglerRule::kRoundSteps, kRounds - 1)];
  for (size_t part = 0; part < kStepParts; ++part) round[part] += now_[part];
  now_ = {};
  ++steps_;
  return measure;
}

Result<std::optional<Straggler>> StepMeter::compare(uint64_t step, Comm& comm, page::Writer& page) {
  if (comm.size() < 2 || step % kCompareEvery != 0) return std::optional<Straggler>();
  std::vector<std::array<StepTimes, kRounds>> all(comm.size());
  PITCREW_TRY(comm.all_gather(std::as_bytes(std::span(&since_, 1)), std::as_writable_bytes(std::span(all))));
  std::vector<StepTimes> ranks(comm.size());
  for (size_t round = 0; round < kRounds && round * StragglerRule::kRoundSteps < steps_; ++round) {
    for (size_t rank = 0; rank < ranks.size(); ++rank) ranks[rank] = all[rank][round];
    rule_.add(ranks, std::min(StragglerRule::kRoundSteps, steps_ - round * StragglerRule::kRoundSteps));
  }
  since_ = {};
  steps_ = 0;
  auto found = rule_.find();
  page.set_gauge("straggler", found && found->rank == comm.rank() ? found->factor : 1);
  const std::optional<uint32_t> before = std::exchange(named_, found ? std::optional(found->rank) : std::nullopt);
  if (found && found->rank == before) found.reset();
  return found;
}

}  // namespace pitcrew::trainer
