#pragma once

#include <functional>
#include <optional>
#include <string>

#include "lib/base/json.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew {

// What the launcher tells a training process through its environment, beside torchrun's variables.
// docs/training-programs.md describes it for programs in any language.
namespace environment {
inline constexpr char kJob[] = "PITCREW_JOB";      // {uid, namespace, name, term} as JSON
inline constexpr char kEpoch[] = "PITCREW_EPOCH";  // the epoch's number
inline constexpr char kCheckpoint[] =
    "PITCREW_CHECKPOINT";                            // the spec's `checkpoint` as JSON, path as the container sees it
inline constexpr char kResume[] = "PITCREW_RESUME";  // ResumePoint as JSON; unset: nothing to resume from
inline constexpr char kReplay[] = "PITCREW_REPLAY";  // ReplayPoint as JSON; unset: no step is under suspicion
inline constexpr char kMemory[] = "PITCREW_MEMORY";  // a folder in memory for checkpoints; unset: tier is off
inline constexpr char kProgress[] = "PITCREW_PROGRESS";  // the progress page, a file to map
inline constexpr char kLauncher[] = "PITCREW_LAUNCHER";  // the launcher's Unix socket
}  // namespace environment

// PITCREW_JOB.
struct JobIdentity {
  std::string uid;
  std::string ns;
  std::string name;
  Term term;
};
Json to_json(const JobIdentity& job);
Result<JobIdentity> parse_job_identity(std::string_view text);

// Where a checkpoint can be.
enum class Place { kMemory, kDurable };
std::string_view to_string(Place place);

// The checkpoint that an epoch's table proposes to start from; the ranks vote on what they take.
struct ResumePoint {
  Step step;
  uint64_t claim = 0;
  Place place = Place::kDurable;
  bool operator==(const ResumePoint&) const = default;
};
Json to_json(const ResumePoint& resume);
Result<ResumePoint> parse_resume_point(const Json& json);

// PITCREW_REPLAY: a step that gave something that can't be right (a loss or gradient that isn't finite, a spike), and
// the same bits when it was computed again on the same node. Whoever computes it now compares: the same bits elsewhere
// mean program or data, other bits mean that the first node's hardware is suspect.
struct ReplayPoint {
  Step step;              // the optimizer step, counted from 1
  Rank rank;              // whose part of the batch it was
  std::string node;       // where it was computed first
  std::string digest;     // of what it computed there; opaque to all but the training program
  bool elsewhere = true;  // the rank is on another node now; false: there was no other
  bool operator==(const ReplayPoint&) const = default;
};
Json to_json(const ReplayPoint& replay);
Result<ReplayPoint> parse_replay_point(const Json& json);

// PITCREW_CHECKPOINT: spec.checkpoint after defaults.
struct CheckpointSettings {
  std::string path;                      // empty: nothing durable is kept
  std::optional<uint64_t> every_steps;   // durable
  std::optional<Duration> every_time;    // durable
  bool every_auto = false;               // durable, as often as cost and failure rate say
  std::optional<uint64_t> memory_steps;  // memory tier; unset: off
  uint32_t memory_copies = 1;            // on peers
  uint32_t keep = 3;                     // durable checkpoints kept
};
Json to_json(const CheckpointSettings& settings);
Result<CheckpointSettings> parse_checkpoint_settings(std::string_view text);

// Exit codes of a training process that mean something to the launcher. Others are judged from the evidence.
namespace exit_code {
inline constexpr int kDone = 0;
inline constexpr int kBadConfiguration = 64;
inline constexpr int kBadData = 65;
inline constexpr int kTryAgain = 75;
inline constexpr int kReplaceNode = 76;
}  // namespace exit_code

}  // namespace pitcrew
