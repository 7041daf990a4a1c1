#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/object_meta.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew::api {

using pitcrew::to_string;  // durations and codes, beside the overloads below

inline constexpr char kGroup[] = "pitcrew.dev";
inline constexpr char kVersion[] = "v1alpha1";

// ---- spec -----------------------------------------------------------------------------------------------------------

// How often a durable checkpoint is written: one of the two.
struct Interval {
  std::optional<uint64_t> steps;
  std::optional<Duration> time;
  bool automatic = false;  // auto: true; the trainer chooses by what a save costs and how often nodes fail
  bool operator==(const Interval&) const = default;
};

struct MemoryTier {
  uint64_t every_steps = 20;
  uint32_t copies = 1;           // on other replicas' nodes
  std::optional<uint64_t> size;  // bytes of PITCREW_MEMORY per pod; unset: auto
  bool operator==(const MemoryTier&) const = default;
};

struct CheckpointSpec {
  std::string path;  // as the container sees it
  std::optional<Interval> every;
  std::optional<MemoryTier> memory;
  uint32_t keep = 3;
  bool operator==(const CheckpointSpec&) const = default;
};

enum class RuleAction { kRestart, kFail };
std::string_view to_string(RuleAction action);

// What follows a failure of the program; the first that matches wins.
struct RecoveryRule {
  std::vector<int> exit_codes;
  std::string log;  // RE2, on the failed rank's last lines
  RuleAction action = RuleAction::kRestart;
  bool operator==(const RecoveryRule&) const = default;
};

struct Limit {
  uint32_t count = 0;
  Duration window{0};
  bool operator==(const Limit&) const = default;
};

struct RecoverySpec {
  Limit restarts{20, hours(6)};
  Limit in_place{3, hours(1)};  // per cause and node; above it the next rung up
  Duration wait_in_place = minutes(10);
  uint32_t avoid_after_failures = 2;
  uint32_t avoid_limit = 4;  // at most so many nodes are avoided at a time
  std::vector<RecoveryRule> rules;
  bool operator==(const RecoverySpec&) const = default;
};

struct MonitoringSpec {
  std::optional<Duration> stall_after;  // unset: auto, learned from the job's own steps
  Duration start_within = minutes(10);
  double slow_below = 0.7;  // of the job's own best rate; reported, nothing is restarted
  bool operator==(const MonitoringSpec&) const = default;
};

enum class CapacityMode { kExisting, kProvision };

struct PlacementSpec {
  CapacityMode capacity = CapacityMode::kExisting;
  Duration gang_timeout = minutes(15);
  std::string priority_class;
  bool operator==(const PlacementSpec&) const = default;
};

struct LifecycleSpec {
  bool suspend = false;
  std::optional<Duration> active_deadline;  // from the first start on
  std::optional<Duration> start_deadline;   // until the first time Running
  Duration warn_before = minutes(5);        // before a deadline: save and stop
  std::optional<Duration> ttl_after_finished;
  bool operator==(const LifecycleSpec&) const = default;
};

struct TrainingJobSpec {
  uint32_t replicas = 1;
  uint32_t spares = 0;
  std::optional<uint32_t> processes_per_replica;  // unset: auto, the pod's GPUs, or 1
  std::string container;                          // after defaults: the template's first, or the named one
  Json pod_template;                              // {metadata, spec}, untouched
  std::optional<CheckpointSpec> checkpoint;
  RecoverySpec recovery;
  MonitoringSpec monitoring;
  PlacementSpec placement;
  LifecycleSpec lifecycle;
  bool operator==(const TrainingJobSpec&) const = default;
};

// ---- status ---------------------------------------------------------------------------------------------------------

enum class Phase { kPending, kStarting, kRunning, kRecovering, kSuspended, kSucceeded, kFailed };
std::string_view to_string(Phase phase);
constexpr bool terminal(Phase phase) { return phase == Phase::kSucceeded || phase == Phase::kFailed; }

enum class Cause { kRankCrash, kLauncherDeath, kHang, kGpuFault, kEfaFault, kNodeLoss, kPlanned, kProgram, kUnknown };
std::string_view to_string(Cause cause);

enum class Rung { kInPlace, kRelaunched, kSpareTaken, kRecreated, kShrunk, kReleased, kFailed };
std::string_view to_string(Rung rung);

// One row of the epoch's table: which pod holds a slot.
struct SlotStatus {
  Slot slot;
  Serial serial;  // of the pod: names it
  std::string pod_uid;
  std::string node;
  std::string address;  // of the launcher, once it said hello
  Rank first_rank;
  bool operator==(const SlotStatus&) const = default;
};

// A pod serial that is reserved (its create may be repeated), as a replica of a slot or as a spare.
struct PodRecord {
  Serial serial;
  std::optional<Slot> slot;  // unset: a spare
  std::string node;          // where it is pinned or bound; empty: not yet
  bool operator==(const PodRecord&) const = default;
};

// A step that gave the same bits twice on one node, and they can't be right: what is known of it until it was computed
// on another node.
struct ReplayStatus {
  Step step;
  Rank rank;
  std::string node;    // where it was computed first
  std::string digest;  // of what it computed there
  uint32_t ranks = 0;  // of the job then: with another number the rank's part of the batch is another
  bool operator==(const ReplayStatus&) const = default;
};

struct EpochStatus {
  EpochNumber number;
  Term term;
  uint32_t port = 0;                // MASTER_PORT
  std::optional<Step> resume_step;  // the proposal; unset: from the beginning
  std::string resume_place;         // memory or durable
  uint64_t resume_claim = 0;
  std::optional<Instant> committed;
  std::optional<ReplayStatus> replay;
  bool operator==(const EpochStatus&) const = default;
};

struct ProgressStatus {
  std::optional<Step> step;
  uint64_t total_steps = 0;
  uint64_t samples = 0;
  double tokens_per_second = 0;
  std::optional<double> loss;
  std::optional<Instant> eta;
  std::optional<Instant> updated;
  bool operator==(const ProgressStatus&) const = default;
};

struct CheckpointStatus {
  std::optional<Step> durable_step;
  std::optional<Instant> durable_time;
  std::string durable_path;
  uint64_t durable_bytes = 0;
  std::optional<Step> memory_step;
  std::optional<Instant> memory_time;
  bool operator==(const CheckpointStatus&) const = default;
};

// Seconds of the job's wall time; ratio = training ÷ (training + starting + restoring + stalled + redone).
struct GoodputStatus {
  double training = 0;
  double starting = 0;
  double restoring = 0;
  double stalled = 0;
  double redone = 0;
  double queued = 0;
  double ratio() const {
    const double all = training + starting + restoring + stalled + redone;
    return all > 0 ? training / all : 0;
  }
  bool operator==(const GoodputStatus&) const = default;
};

struct RestartsStatus {
  uint32_t total = 0;
  uint32_t in_place = 0;
  uint32_t replaced = 0;  // SpareTaken, Relaunched
  uint32_t recreated = 0;
  bool operator==(const RestartsStatus&) const = default;
};

struct RequestStatus {
  std::string id;
  std::string verb;   // save, stacks
  std::string state;  // Running, Done, Refused
  std::string message;
  std::optional<Instant> time;
  bool operator==(const RequestStatus&) const = default;
};

// What happened, what was done about it, and what it cost.
struct Recovery {
  Cause cause = Cause::kUnknown;
  std::string evidence;
  std::string node;
  std::optional<Rank> rank;
  Rung rung = Rung::kInPlace;
  uint64_t epoch = 0;  // that it led to
  std::optional<uint64_t> steps_lost;
  std::optional<Instant> happened;  // as near as it is known
  std::optional<Instant> detected;
  std::optional<Instant> decided;     // the epoch was committed
  std::optional<Instant> ready;       // every slot bound and connected
  std::optional<Instant> restored;    // checkpoint read
  std::optional<Instant> first_step;  // training again
  bool operator==(const Recovery&) const = default;
};

// Failures counted for limits and for avoided nodes: kept longer than the ten recoveries that people see.
struct FailureRecord {
  Instant time;
  Cause cause = Cause::kUnknown;
  Rung rung = Rung::kInPlace;
  std::string node;
  std::string fingerprint;  // what failed and where (exception, step), to know the same failure again
  bool operator==(const FailureRecord&) const = default;
};

struct TrainingJobStatus {
  Phase phase = Phase::kPending;
  std::vector<Condition> conditions;  // Admitted, Running, Checkpointed, Succeeded, Failed
  EpochStatus epoch;
  std::vector<SlotStatus> slots;  // the epoch's table
  std::vector<PodRecord> pods;    // reserved serials whose pods are ours now
  Serial next_serial;
  uint32_t desired = 0;
  uint32_t ready = 0;
  uint32_t spare = 0;
  ProgressStatus progress;
  CheckpointStatus checkpoint;
  GoodputStatus goodput;
  RestartsStatus restarts;
  int64_t observed_generation = 0;
  std::optional<Instant> start_time;
  std::optional<Instant> completion_time;
  std::vector<RequestStatus> requests;  // the last ten
  std::vector<Recovery> recoveries;     // the last ten, newest first
  std::vector<FailureRecord> failures;  // within the widest window, at most 256
  std::vector<std::string> avoided_nodes;
  // Room for what decide needs to remember across reconciles and leaders: "since when" marks by name, bounded.
  std::map<std::string, Instant> marks;
  bool operator==(const TrainingJobStatus&) const = default;
};

struct TrainingJob {
  ObjectMeta metadata;
  TrainingJobSpec spec;
  TrainingJobStatus status;
  bool operator==(const TrainingJob&) const = default;

  static const ResourceType& type();
  // Strict: unknown fields of the spec, wrong types and everything validate() finds are one error, each with its path.
  static Result<TrainingJob> decode(const Json& json);
  Json encode() const;
};

// Decodes a manifest, fills defaults, and collects everything that is wrong with it.
TrainingJob decode_training_job(const Json& json, Problems& problems);
// What the spec says that can't be right, whatever way it came: ranges, contradictions, what this version refuses by
// name.
void validate(const TrainingJob& job, Problems& problems);
// What of `after` may not differ from `before`: template, container, processesPerReplica, checkpoint.path; replicas
// unless suspended.
void validate_update(const TrainingJob& before, const TrainingJob& after, Problems& problems);

// Pods are <job>-<first 5 of the job's UID>-<serial>.
std::string pod_name(const TrainingJob& job, Serial serial);

// Labels and annotations of ours.
namespace label {
inline constexpr char kJob[] = "pitcrew.dev/job";
inline constexpr char kJobUid[] = "pitcrew.dev/job-uid";
inline constexpr char kSerial[] = "pitcrew.dev/serial";
inline constexpr char kManagedBy[] = "app.kubernetes.io/managed-by";  // "pitcrew"
}  // namespace label
namespace annotation {
inline constexpr char kChannel[] = "pitcrew.dev/channel";   // channel.json
inline constexpr char kRequest[] = "pitcrew.dev/request-";  // + verb
}  // namespace annotation

}  // namespace pitcrew::api
