#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/progress_page.hpp"
#include "lib/base/time.hpp"
#include "trainer/comm/comm.hpp"

namespace pitcrew::trainer {

// Where a step's time goes.
enum class StepPart { kData, kCompute, kExchange, kOptimizer, kStall };
inline constexpr size_t kStepParts = 5;

// Seconds by part, of one rank over some steps.
using StepTimes = std::array<double, kStepParts>;

struct Straggler {
  uint32_t rank = 0;
  double factor = 1;    // its own time ÷ the median rank's
  std::string message;  // for people
};

// Who holds the others up: the rank whose own part of a step (all but the exchange, in which ranks wait for one
// another) takes longest, and 15 % and a millisecond a step longer than the median rank's, round after round. A round
// is at least 10 steps and a second, so one pause of a machine, however long, is one round's; named is who stands out
// in nine of ten of the last rounds (at most 20, at least 8), else nobody. A value; all ranks are told the same and
// find the same.
class StragglerRule {
 public:
  static constexpr uint64_t kRoundSteps = 10;

  // All ranks' times over the next `steps` steps.
  void add(const std::vector<StepTimes>& ranks, uint64_t steps);
  std::optional<Straggler> find() const;

 private:
  struct Round {
    std::vector<StepTimes> ranks;
    uint64_t steps = 0;
    double seconds = 0;  // of the rank that took longest, its waiting included
    bool full() const;
  };
  std::deque<Round> rounds_;
};

// What one step was like, as steps.jsonl and the progress page tell it.
struct StepMeasure {
  double seconds = 0;
  double tokens_per_second = 0;  // of the whole job
  double data_wait = 0;          // seconds that the step waited for its samples
  double stall = 0;              // seconds that it waited for checkpoints
  uint64_t memory = 0;           // bytes: a GPU's by the memory plan, a CPU's resident
  std::optional<double> mfu;     // unset: the peak isn't known
  bool reproducible = true;      // false: NCCL adds gradients
};

// The GPU's dense BF16 peak in TFLOP/s by its name ("NVIDIA H200"), from NVIDIA's data sheets; unset: unknown.
std::optional<double> peak_tflops(std::string_view gpu);

// Adds up one rank's times and compares them with the others' now and then. Owned and called by the training thread.
class StepMeter {
 public:
  static constexpr uint64_t kCompareEvery = 50;  // steps

  struct Settings {
    double tokens_per_step = 0;  // of the whole job
    // Model FLOPs: 6 for each parameter that multiplies and token, and for attention what a causal mask leaves.
    // Recomputing is not counted.
    double flops_per_token = 0;
    double peak_flops = 0;  // of all ranks together; 0: unknown
    uint64_t memory = 0;    // 0: the process's resident memory
  };
  explicit StepMeter(Settings settings) : settings_(settings) {}

  void add(StepPart part, Duration time);
  // The step is over, `seconds` after it began. Its parts are told to the page.
  StepMeasure finish(double seconds, page::Writer& page);
  // Every kCompareEvery steps: all ranks' times. Collective then. The straggler where one is named that was not before;
  // while it is named its factor stands in its gauge `straggler`, which is 1 for those that hold nobody up.
  Result<std::optional<Straggler>> compare(uint64_t step, Comm& comm, page::Writer& page);

 private:
  const Settings settings_;
  StepTimes now_{};  // of the step under way
  static constexpr size_t kRounds = kCompareEvery / StragglerRule::kRoundSteps;
  std::array<StepTimes, kRounds> since_{};  // since the last comparison, kRoundSteps steps each
  uint64_t steps_ = 0;
  StragglerRule rule_;
  std::optional<uint32_t> named_;  // the straggler's rank
};

}  // namespace pitcrew::trainer
