#include <algorithm>
#include <cmath>

#include "cli/diagnose/judge.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kStatusEvery = seconds(30);  // how far behind a status may be (DESIGN.md, section 3)
constexpr char kDataWait[] = "data_wait_seconds";

double all_seconds(const api::GoodputStatus& goodput) {
  return goodput.training + goodput.starting + goodput.restoring + goodput.stalled + goodput.redone;
}

std::string share(double part, double all) { return percent(part / all) + " (" + spoken(from_seconds(part)) + ")"; }

// Seconds that a step takes, from the rate and the tokens, where the program says it; else unknown.
double step_seconds(const Facts& facts) {
  const auto& progress = facts.job.status.progress;
  const auto& goodput = facts.job.status.goodput;
  if (!progress.step || progress.step->value == 0 || goodput.training + goodput.redone <= 0) return 0;
  return goodput.training / static_cast<double>(progress.step->value);
}

void stands_still(const Facts& facts, Findings& findings) {
  const auto& progress = facts.job.status.progress;
  if (!progress.updated) return;
  const Duration still = facts.now - *progress.updated;
  if (still < std::max<Duration>(kStatusEvery * 2, kStatusEvery + from_seconds(4 * step_seconds(facts)))) return;
  Finding finding{
      "NoProgress",
      80,
      "It says Running, but no step was done for " + spoken(still) + ".",
      {"step " + grouped(progress.step.value_or(Step(0)).value) + " since " + clock_time(facts.now, *progress.updated)},
      "see where the ranks are",
      pitcrew(facts, "stacks " + facts.job.metadata.name)};
  // The one that isn't waiting for the others.
  std::vector<std::string> outside;
  for (const RankFact& rank : facts.ranks) {
    if (!rank.in_collective) outside.push_back(std::to_string(rank.rank));
  }
  if (!outside.empty() && outside.size() * 2 < facts.ranks.size()) {
    finding.evidence.push_back("ranks in no collective, while the others wait in one: " + some_of(outside, 8));
    finding.title =
        "It hangs: no step for " + spoken(still) + ", and the others wait for rank " + outside.front() + ".";
    finding.id = "Hanging";
    finding.weight = 86;
  }
  findings.push_back(std::move(finding));
}

void goodput(const Facts& facts, Findings& findings) {
  const auto& goodput = facts.job.status.goodput;
  const double all = all_seconds(goodput);
  if (all < 600 || goodput.ratio() > 0.9) return;
  struct Part {
    double seconds;
    const char* id;
    const char* title;
    const char* remedy;
  };
  const Part parts[] = {
      {goodput.redone, "RedoneSteps", "Much time went into steps that had to be done again after failures.",
       "memory checkpoints (checkpoint.memory), or durable ones more often"},
      {goodput.stalled, "StalledTime", "Much time passed between failures and their recovery.",
       "spares shorten it most; hangs count here until they are detected (monitoring.progress.stallAfter)"},
      {goodput.restoring, "RestoringTime", "Much time went into coming back: loading, compiling and restoring.",
       "memory checkpoints restore fastest; keep compile caches on a shared volume"},
      {goodput.starting, "StartingTime", "Much time went into the first start: images, programs, first steps.",
       "smaller images, or images on the nodes"},
  };
  const Part& worst = *std::max_element(std::begin(parts), std::end(parts),
                                        [](const Part& a, const Part& b) { return a.seconds < b.seconds; });
  if (worst.seconds < all * 0.05) return;
  findings.push_back({worst.id,
                      static_cast<int>(20 + 30 * (1 - goodput.ratio())),
                      worst.title,
                      {"goodput " + percent(goodput.ratio()) + "; this part " + share(worst.seconds, all)},
                      worst.remedy,
                      pitcrew(facts, "timeline " + facts.job.metadata.name)});
}

std::vector<double> gauge_of_ranks(const Facts& facts, const std::string& name) {
  std::vector<double> values;
  for (const RankFact& rank : facts.ranks) {
    const auto found = rank.gauges.find(name);
    if (found != rank.gauges.end() && std::isfinite(found->second)) values.push_back(found->second);
  }
  return values;
}

void data_wait(const Facts& facts, Findings& findings) {
  const std::vector<double> waits = gauge_of_ranks(facts, kDataWait);
  const double step = step_seconds(facts);
  if (waits.empty() || step <= 0) return;
  const double worst = *std::max_element(waits.begin(), waits.end());
  if (worst < step * 0.05 || worst < 0.001) return;
  findings.push_back({"DataWait",
                      static_cast<int>(30 + 30 * std::min(1.0, worst / step)),
                      "Ranks wait for data: " + percent(std::min(1.0, worst / step)) + " of a step.",
                      {"the slowest waited " + spoken(from_seconds(worst)) +
                       " for its last batch, a step takes about " + spoken(from_seconds(step))},
                      "more prefetch and data workers, or look at the file system's throughput",
                      pitcrew(facts, "top " + facts.job.metadata.name)});
}

void gpu_memory(const Facts& facts, Findings& findings) {
  const std::vector<double> used = gauge_of_ranks(facts, "gpu_memory_used_ratio");
  if (used.empty()) return;
  const double most = *std::max_element(used.begin(), used.end());
  if (most > 0.97) {
    findings.push_back({"GpuMemoryTight",
                        20,
                        "GPU memory is nearly used up: " + percent(most) + ".",
                        {},
                        "a slightly longer sequence or fragmentation ends in an out-of-memory error",
                        pitcrew(facts, "top " + facts.job.metadata.name)});
  } else if (most < 0.5) {
    findings.push_back({"GpuMemoryIdle",
                        15,
                        "GPU memory is used to " + percent(most) + " only.",
                        {},
                        "a larger micro-batch may be faster",
                        pitcrew(facts, "top " + facts.job.metadata.name)});
  }
}

void checkpoints(const Facts& facts, Findings& findings) {
  const auto& spec = facts.job.spec.checkpoint;
  const auto& status = facts.job.status;
  if (!spec) {
    if (status.phase == api::Phase::kRunning) {
      findings.push_back({"NoCheckpoints",
                          28,
                          "The job has no checkpoint configured: a failure starts it from step 0.",
                          {},
                          "set spec.checkpoint on the next job (checkpoint.path can't be changed on this one)",
                          "pitcrew validate job.yaml"});
    }
    return;
  }
  if (!spec->every || !status.progress.step) return;
  const double step = step_seconds(facts);
  Duration due{0};
  if (spec->every->time) due = *spec->every->time;
  if (spec->every->steps && step > 0) due = from_seconds(step * static_cast<double>(*spec->every->steps));
  if (due <= Duration(0)) return;
  const Instant last = status.checkpoint.durable_time.value_or(status.start_time.value_or(facts.now));
  const Duration age = facts.now - last;
  if (age < due * 3 || age < minutes(5) || status.phase != api::Phase::kRunning) return;
  findings.push_back(
      {"CheckpointOld",
       52,
       "The newest durable checkpoint is " + spoken(age) + " old, though one is due every " + spoken(due) + ".",
       {status.checkpoint.durable_step ? "step " + grouped(status.checkpoint.durable_step->value)
                                       : "there is none yet"},
       "saving may be failing: the trainer's log says why (a full disk, a path that isn't writable)",
       pitcrew(facts, "checkpoint now " + facts.job.metadata.name)});
}

}  // namespace

void judge_pace(const Facts& facts, Findings& findings) {
  if (api::terminal(facts.job.status.phase) || facts.job.spec.lifecycle.suspend) return;
  checkpoints(facts, findings);
  if (facts.job.status.phase == api::Phase::kRunning) {
    stands_still(facts, findings);
    data_wait(facts, findings);
    gpu_memory(facts, findings);
    goodput(facts, findings);
  }
}

}  // namespace pitcrew::cli
