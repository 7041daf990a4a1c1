#include <algorithm>
#include <cmath>

#include "cli/diagnose/rules.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kStatusEvery = seconds(30);  // how far behind a status may be (DESIGN.md, section 3)
constexpr Duration kSavePatience = minutes(1);

double all_seconds(const api::GoodputStatus& goodput) {
  return goodput.training + goodput.starting + goodput.restoring + goodput.stalled + goodput.redone;
}

std::string share(double part, double all) { return percent(part / all) + " (" + spoken(from_seconds(part)) + ")"; }

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
      "see in the stacks what keeps them",
      pitcrew(facts, "stacks " + facts.job.metadata.name)};
  // The one that isn't waiting for the others: in no collective, or in an earlier one than they.
  double newest = 0;
  for (const RankFact& rank : facts.ranks) newest = std::max(newest, rank.collective);
  std::vector<std::string> behind;
  for (const RankFact& rank : facts.ranks) {
    if (!rank.in_collective || rank.collective < newest) behind.push_back(std::to_string(rank.rank));
  }
  if (!behind.empty() && behind.size() * 2 <= facts.ranks.size()) {
    finding.evidence.push_back("not in the collective that the others wait in: rank " + some_of(behind, 8));
    finding.title = "It hangs: no step for " + spoken(still) + ", and the others wait for rank " + behind.front() + ".";
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

// What the trainer says of its ranks' own times (docs/trainer.md): the time of one over the median's.
void straggler(const Facts& facts, Findings& findings) {
  const RankFact* slowest = nullptr;
  double factor = 1;
  for (const RankFact& rank : facts.ranks) {
    const auto found = rank.gauges.find("straggler");
    if (found == rank.gauges.end() || !std::isfinite(found->second) || found->second <= factor) continue;
    slowest = &rank;
    factor = found->second;
  }
  if (slowest == nullptr) return;
  const auto pod =
      std::find_if(facts.pods.begin(), facts.pods.end(), [&](const PodFact& one) { return one.name == slowest->pod; });
  const std::string node = pod == facts.pods.end() ? "" : pod->node;
  findings.push_back(
      {"Straggler",
       static_cast<int>(40 + 20 * std::min(1.0, factor - 1)),
       "All wait for one slow rank: rank " + std::to_string(slowest->rank) + (node.empty() ? "" : " on " + node) + ".",
       {"its own part of a step takes " + percent(factor) + " of the median rank's", "pod " + slowest->pod},
       "if it stays with the node when the job moves it is the node: throttled, shared or worn; else the "
       "program's parts are uneven",
       node.empty() ? pitcrew(facts, "top " + facts.job.metadata.name) : pitcrew(facts, "nodes " + node)});
}

// How often one is due, as far as it can be told; else zero.
Duration checkpoint_due(const Facts& facts) {
  const auto& every = facts.job.spec.checkpoint->every;
  if (!every) return Duration(0);
  if (every->time) return *every->time;
  const double step = step_seconds(facts);
  return every->steps && step > 0 ? from_seconds(step * static_cast<double>(*every->steps)) : Duration(0);
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
  const auto age = checkpoint_overdue(facts);
  if (!age) return;
  const std::string newest = status.checkpoint.durable_step
                                 ? "the newest durable one is of step " + grouped(status.checkpoint.durable_step->value)
                                 : "there is no durable checkpoint yet";
  if (!facts.save_error.empty()) {
    const Rule* cause = cause_of(facts.save_error);
    findings.push_back(
        {"SaveFails",
         87,
         "Durable checkpoints can't be saved; training goes on, and nothing of it would outlive its pods.",
         {facts.save_error, newest},
         cause != nullptr ? cause->remedy : "mend what the message names; the next save is tried by itself",
         pitcrew(facts, "logs " + facts.job.metadata.name + " --tail 50")});
    return;
  }
  findings.push_back({"CheckpointOld",
                      52,
                      "The newest durable checkpoint is " + spoken(*age) + " old, though one is due every " +
                          spoken(checkpoint_due(facts)) + ".",
                      {newest},
                      "saving may be failing: the trainer's log says why (a full disk, a path that isn't writable)",
                      pitcrew(facts, "checkpoint now " + facts.job.metadata.name)});
}

}  // namespace

double step_seconds(const Facts& facts) {
  const auto& progress = facts.job.status.progress;
  const auto& goodput = facts.job.status.goodput;
  if (!progress.step || progress.step->value == 0 || goodput.training + goodput.redone <= 0) return 0;
  return goodput.training / static_cast<double>(progress.step->value);
}

std::optional<Duration> checkpoint_overdue(const Facts& facts) {
  const auto& status = facts.job.status;
  if (!facts.job.spec.checkpoint || !status.progress.step || status.phase != api::Phase::kRunning) return std::nullopt;
  const Duration due = checkpoint_due(facts);
  const Instant last = status.checkpoint.durable_time.value_or(status.start_time.value_or(facts.now));
  const Duration age = facts.now - last;
  if (due <= Duration(0) || age < std::max<Duration>(due * 3, kSavePatience)) return std::nullopt;
  return age;
}

void judge_pace(const Facts& facts, Findings& findings) {
  if (api::terminal(facts.job.status.phase) || facts.job.spec.lifecycle.suspend) return;
  checkpoints(facts, findings);
  if (facts.job.status.phase == api::Phase::kRunning) {
    stands_still(facts, findings);
    straggler(facts, findings);
    goodput(facts, findings);
  }
}

}  // namespace pitcrew::cli
