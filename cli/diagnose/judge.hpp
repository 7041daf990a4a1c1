#pragma once

#include <string>
#include <vector>

#include "cli/diagnose/facts.hpp"

namespace pitcrew::cli {

// One reason why a job doesn't train, or trains slowly.
struct Finding {
  std::string id;     // "ImageNotFound": what scripts match
  int weight = 0;     // 100: this alone explains it; below 30: worth knowing
  std::string title;  // one sentence
  std::vector<std::string> evidence;
  std::string remedy;   // what to do about it
  std::string command;  // that shows more, or does it
};

enum class CheckState { kGood, kBad, kWarning, kUnknown };

// One line of what was looked at.
struct Check {
  std::string name;
  CheckState state = CheckState::kUnknown;
  std::string text;
};

struct Diagnosis {
  std::string headline;  // "Pending for 14m"
  std::vector<Check> checks;
  std::vector<Finding> findings;  // the likeliest first
};

// Pure.
Diagnosis judge(const Facts& facts);

// The parts of judge(): each adds what it finds.
using Findings = std::vector<Finding>;
void judge_operator(const Facts& facts, Findings& findings);   // nobody leads, the job isn't looked after
void judge_spec(const Facts& facts, Findings& findings);       // suspended, being deleted, deadlines, refused spec
void judge_admission(const Facts& facts, Findings& findings);  // room, quota, refused pods
void judge_pods(const Facts& facts, Findings& findings);       // images, volumes, configuration, sandbox, exits
void judge_nodes(const Facts& facts, Findings& findings);      // not ready, faults, drains
void judge_failures(const Facts& facts, Findings& findings);   // what failed last and how often
void judge_pace(const Facts& facts, Findings& findings);       // stalled, slow, goodput, checkpoints
void judge_use(const Facts& facts, Findings& findings);        // GPU memory, tensor cores, EFA, waits in a step
// The line of what judge_use() looks at; nothing where nobody told anything.
std::optional<Check> check_use(const Facts& facts);

// Helpers of several parts.
std::string kubectl(const Facts& facts, const std::string& rest);
std::string pitcrew(const Facts& facts, const std::string& rest);
// For how long the job has been in its phase: since its newest condition changed.
Duration in_phase(const Facts& facts);
const Condition* condition(const Facts& facts, std::string_view type);
// Seconds that a step takes, from the time spent training and the steps; 0: unknown.
double step_seconds(const Facts& facts);
// How old the newest durable checkpoint of a running job is, where a newer one should long be there.
std::optional<Duration> checkpoint_overdue(const Facts& facts);
bool contains(std::string_view text, std::string_view part);  // without case

}  // namespace pitcrew::cli
