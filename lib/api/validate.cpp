#include <algorithm>
#include <set>

#include <re2/re2.h>

#include "lib/api/training_job.hpp"

namespace pitcrew::api {
namespace {

constexpr uint32_t kMaxReplicas = 4096;
constexpr size_t kMaxRules = 64;
constexpr size_t kMaxPattern = 1024;
// The pod's name, job-xxxxx-serial, must stay a DNS label of 63 characters.
constexpr size_t kMaxName = 50;

class Checker {
 public:
  explicit Checker(Problems& problems) : problems_(problems) {}

  void problem(std::string path, std::string message) { problems_.push_back({std::move(path), std::move(message)}); }
  void require(bool good, std::string path, std::string message) {
    if (!good) problem(std::move(path), std::move(message));
  }

 private:
  Problems& problems_;
};

bool dns_label(std::string_view name) {
  if (name.empty() || name.front() == '-' || name.back() == '-') return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

// The member of an object, or null where either isn't there.
const Json* member(const Json* json, std::string_view key) {
  if (json == nullptr || !json->is_object()) return nullptr;
  const auto found = json->find(key);
  return found == json->end() || found->is_null() ? nullptr : &*found;
}

std::string text_of(const Json* json) { return json != nullptr && json->is_string() ? json->get<std::string>() : ""; }

std::string indexed(std::string_view path, size_t index) {
  return std::string(path) + "[" + std::to_string(index) + "]";
}

void check_metadata(const ObjectMeta& metadata, Checker& check) {
  check.require(!metadata.name.empty(), "metadata.name", "is missing; give the job a name");
  if (metadata.name.empty()) return;
  check.require(dns_label(metadata.name), "metadata.name",
                "'" + metadata.name +
                    "' must be lower-case letters, digits and '-', beginning and ending with a letter or digit");
  check.require(metadata.name.size() <= kMaxName, "metadata.name",
                "is longer than " + std::to_string(kMaxName) + " characters; pod names are made from it, shorten it");
}

void check_size(const TrainingJobSpec& spec, Checker& check) {
  check.require(spec.replicas >= 1, "spec.replicas", "must be at least 1");
  check.require(spec.replicas <= kMaxReplicas, "spec.replicas", "must be at most " + std::to_string(kMaxReplicas));
  check.require(spec.spares <= kMaxReplicas, "spec.spares", "must be at most " + std::to_string(kMaxReplicas));
  if (spec.processes_per_replica) {
    check.require(*spec.processes_per_replica >= 1 && *spec.processes_per_replica <= 128, "spec.processesPerReplica",
                  "must be auto or between 1 and 128");
  }
}

void check_checkpoint(const TrainingJobSpec& spec, Checker& check) {
  if (!spec.checkpoint) return;
  const CheckpointSpec& checkpoint = *spec.checkpoint;
  const std::string at = "spec.checkpoint";
  if (checkpoint.path.starts_with("s3://")) {
    static const RE2 kBucket("s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?");
    check.require(RE2::FullMatch(checkpoint.path, kBucket), at + ".path", "names no bucket; write s3://bucket/prefix");
  } else if (!checkpoint.path.empty()) {
    check.require(checkpoint.path.front() == '/', at + ".path",
                  "must be absolute, as the container sees it: /checkpoints/name, or s3://bucket/prefix");
  }
  check.require(checkpoint.path.find("/../") == std::string::npos && !checkpoint.path.ends_with("/.."), at + ".path",
                "must not contain '..'");
  if (checkpoint.every) {
    const Interval& every = *checkpoint.every;
    check.require(!(every.steps && every.time), at + ".every", "has steps and time; keep one of the two");
    check.require(!every.automatic || !(every.steps || every.time), at + ".every",
                  "has auto and a number; keep one of the two");
    check.require(!checkpoint.every->steps || *checkpoint.every->steps >= 1, at + ".every.steps", "must be at least 1");
    check.require(!checkpoint.every->time || *checkpoint.every->time >= seconds(10), at + ".every.time",
                  "must be at least 10s");
  }
  check.require(checkpoint.keep >= 1, at + ".keep",
                "must be at least 1; the newest checkpoint is what a restart needs");
  if (checkpoint.memory) {
    const MemoryTier& memory = *checkpoint.memory;
    check.require(memory.every_steps >= 1, at + ".memory.every.steps", "must be at least 1");
    check.require(spec.replicas == 1 || memory.copies < spec.replicas, at + ".memory.copies",
                  "must be below replicas (" + std::to_string(spec.replicas) + "): copies lie on other replicas");
    check.require(!memory.size || *memory.size >= (1u << 20), at + ".memory.size", "must be auto or at least 1Mi");
  }
}

void check_rules(const RecoverySpec& recovery, Checker& check) {
  check.require(recovery.rules.size() <= kMaxRules, "spec.recovery.rules",
                "must be at most " + std::to_string(kMaxRules) + " rules");
  for (size_t i = 0; i < recovery.rules.size(); ++i) {
    const RecoveryRule& rule = recovery.rules[i];
    const std::string at = indexed("spec.recovery.rules", i);
    check.require(!rule.exit_codes.empty() || !rule.log.empty(), at + ".match",
                  "matches nothing; give exitCodes or log");
    for (size_t k = 0; k < rule.exit_codes.size(); ++k) {
      check.require(rule.exit_codes[k] >= 1 && rule.exit_codes[k] <= 255, indexed(at + ".match.exitCodes", k),
                    std::to_string(rule.exit_codes[k]) + " is no exit code of a failure; use 1 to 255");
    }
    if (rule.log.empty()) continue;
    check.require(rule.log.size() <= kMaxPattern, at + ".match.log",
                  "is longer than " + std::to_string(kMaxPattern) + " characters");
    const RE2 pattern(rule.log, RE2::Quiet);
    check.require(pattern.ok(), at + ".match.log", "is not a regular expression (RE2): " + pattern.error());
  }
}

void check_recovery(const RecoverySpec& recovery, Checker& check) {
  const std::string at = "spec.recovery";
  check.require(recovery.restarts.count <= 10'000, at + ".limit.restarts", "must be at most 10000");
  check.require(recovery.restarts.window >= minutes(1), at + ".limit.window", "must be at least 1m");
  check.require(recovery.in_place.count <= 1'000, at + ".inPlace.limit", "must be at most 1000");
  check.require(recovery.in_place.window >= minutes(1), at + ".inPlace.window", "must be at least 1m");
  check.require(recovery.wait_in_place >= seconds(10), at + ".waitInPlace", "must be at least 10s");
  check.require(recovery.avoid_after_failures >= 1, at + ".avoidNodes.afterFailures", "must be at least 1");
  check_rules(recovery, check);
}

void check_times(const TrainingJobSpec& spec, Checker& check) {
  const MonitoringSpec& monitoring = spec.monitoring;
  check.require(!monitoring.stall_after || *monitoring.stall_after >= seconds(5), "spec.monitoring.progress.stallAfter",
                "must be auto or at least 5s");
  check.require(monitoring.start_within >= seconds(10), "spec.monitoring.progress.startWithin", "must be at least 10s");
  check.require(monitoring.slow_below > 0 && monitoring.slow_below < 1, "spec.monitoring.progress.slowBelow",
                "must be between 0% and 100%");
  check.require(spec.placement.gang_timeout >= seconds(10), "spec.placement.gangTimeout", "must be at least 10s");
  const LifecycleSpec& lifecycle = spec.lifecycle;
  const std::string at = "spec.lifecycle";
  if (lifecycle.active_deadline) {
    check.require(*lifecycle.active_deadline >= minutes(1), at + ".activeDeadline", "must be at least 1m");
    check.require(lifecycle.warn_before < *lifecycle.active_deadline, at + ".warnBefore",
                  "must be below activeDeadline (" + to_string(*lifecycle.active_deadline) +
                      "): the job saves that long before its end");
  }
  check.require(!lifecycle.start_deadline || *lifecycle.start_deadline >= seconds(10), at + ".startDeadline",
                "must be at least 10s");
}

// The environment that the launcher sets itself; a template that sets it too would be overridden silently.
bool launcher_sets(std::string_view name) {
  static const std::set<std::string_view> names{"RANK",       "LOCAL_RANK",       "WORLD_SIZE",  "LOCAL_WORLD_SIZE",
                                                "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
                                                "ROLE_RANK",  "ROLE_WORLD_SIZE"};
  return names.contains(name) || name.starts_with("PITCREW_");
}

void check_container(const Json& container, const std::string& at, Checker& check) {
  const Json* command = member(&container, "command");
  const bool runs = command != nullptr && command->is_array() && !command->empty();
  check.require(runs, at + ".command", "is missing; the launcher replaces the image's entry point, so say what to run");
  const Json* env = member(&container, "env");
  if (env != nullptr && env->is_array()) {
    for (size_t i = 0; i < env->size(); ++i) {
      const std::string name = text_of(member(&(*env)[i], "name"));
      check.require(!launcher_sets(name), indexed(at + ".env", i) + ".name",
                    name + " is set by the launcher; remove it");
    }
  }
  const Json* mounts = member(&container, "volumeMounts");
  if (mounts != nullptr && mounts->is_array()) {
    for (size_t i = 0; i < mounts->size(); ++i) {
      const std::string path = text_of(member(&(*mounts)[i], "mountPath"));
      check.require(path != "/pitcrew" && !path.starts_with("/pitcrew/"),
                    indexed(at + ".volumeMounts", i) + ".mountPath",
                    "/pitcrew is where the launcher lives; mount elsewhere");
    }
  }
}

// The name of the volume that is mounted at, or above, a path; empty where the path lies in the container's own file
// system.
std::string volume_of(const Json& container, const std::string& path) {
  std::string best_mount, volume;
  const Json* mounts = member(&container, "volumeMounts");
  if (mounts == nullptr || !mounts->is_array()) return "";
  for (const Json& mount : *mounts) {
    std::string at = text_of(member(&mount, "mountPath"));
    while (at.size() > 1 && at.back() == '/') at.pop_back();
    const bool covers = !at.empty() && (path == at || path.starts_with(at == "/" ? at : at + "/"));
    if (covers && at.size() > best_mount.size()) {
      best_mount = at;
      volume = text_of(member(&mount, "name"));
    }
  }
  return volume;
}

void check_checkpoint_volume(const TrainingJobSpec& spec, const Json& pod, const Json& container, Checker& check) {
  if (!spec.checkpoint || spec.checkpoint->path.empty() || spec.checkpoint->path.front() != '/') return;
  const std::string name = volume_of(container, spec.checkpoint->path);
  if (name.empty()) {
    check.problem(
        "spec.checkpoint.path",
        "lies on no volume of the container; mount one that all replicas share, or checkpoints die with the pod");
    return;
  }
  const Json* volumes = member(&pod, "volumes");
  if (volumes == nullptr || !volumes->is_array()) return;
  for (const Json& volume : *volumes) {
    if (text_of(member(&volume, "name")) != name) continue;
    check.require(member(&volume, "emptyDir") == nullptr, "spec.checkpoint.path",
                  "lies on the emptyDir '" + name + "', which dies with its pod; use a volume that all replicas share");
    return;
  }
  check.problem("spec.checkpoint.path", "lies on the volume '" + name + "', which the template does not define");
}

void check_template(const TrainingJobSpec& spec, Checker& check) {
  const std::string at = "spec.template.spec";
  if (spec.pod_template.is_null()) return;
  const Json* pod = member(&spec.pod_template, "spec");
  if (pod == nullptr || !pod->is_object()) {
    check.problem(at, "is missing; give the pod's spec");
    return;
  }
  const std::string restart = text_of(member(pod, "restartPolicy"));
  check.require(
      restart.empty() || restart == "OnFailure", at + ".restartPolicy",
      "must be OnFailure (or left out): a launcher that dies comes back in its pod, anything else is Pitcrew's work");
  for (const char* field : {"hostPID", "shareProcessNamespace"}) {
    const Json* value = member(pod, field);
    check.require(value == nullptr || *value == false, at + "." + field,
                  "must not be set: the launcher must be PID 1 to see every process of its container");
  }
  check.require(member(pod, "nodeName") == nullptr, at + ".nodeName",
                "must not be set: Pitcrew chooses the node; use nodeSelector or affinity");
  const Json* containers = member(pod, "containers");
  if (containers == nullptr || !containers->is_array() || containers->empty()) {
    check.problem(at + ".containers", "needs at least the training container");
    return;
  }
  for (size_t i = 0; i < containers->size(); ++i) {
    const std::string name = text_of(member(&(*containers)[i], "name"));
    check.require(!name.empty(), indexed(at + ".containers", i) + ".name", "is missing");
    if (spec.container.empty() ? i == 0 : name == spec.container) {
      check_container((*containers)[i], indexed(at + ".containers", i), check);
      check_checkpoint_volume(spec, *pod, (*containers)[i], check);
      return;
    }
  }
  check.problem("spec.container", "'" + spec.container + "' is no container of the template");
}

}  // namespace

void validate(const TrainingJob& job, Problems& problems) {
  Checker check(problems);
  check_metadata(job.metadata, check);
  check_size(job.spec, check);
  check_checkpoint(job.spec, check);
  check_recovery(job.spec.recovery, check);
  check_times(job.spec, check);
  check_template(job.spec, check);
}

void validate_update(const TrainingJob& before, const TrainingJob& after, Problems& problems) {
  Checker check(problems);
  const auto immutable = [&](bool same, const char* path) {
    check.require(same, path, "can't be changed; delete the job and apply it again (its checkpoints stay)");
  };
  immutable(before.spec.pod_template == after.spec.pod_template, "spec.template");
  immutable(before.spec.container == after.spec.container, "spec.container");
  immutable(before.spec.processes_per_replica == after.spec.processes_per_replica, "spec.processesPerReplica");
  const std::string path_before = before.spec.checkpoint ? before.spec.checkpoint->path : "";
  const std::string path_after = after.spec.checkpoint ? after.spec.checkpoint->path : "";
  immutable(path_before == path_after, "spec.checkpoint.path");
  check.require(before.spec.replicas == after.spec.replicas || before.spec.lifecycle.suspend, "spec.replicas",
                "can be changed only while the job is suspended; set lifecycle.suspend: true first");
}

}  // namespace pitcrew::api
