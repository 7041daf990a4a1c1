#include <array>
#include <cmath>

#include "lib/api/training_job_codec.hpp"

namespace pitcrew::api::codec {
namespace {

template <typename Enum, size_t N>
std::vector<std::pair<std::string_view, Enum>> words(const std::array<Enum, N>& values) {
  std::vector<std::pair<std::string_view, Enum>> all;
  for (const Enum value : values) all.emplace_back(to_string(value), value);
  return all;
}

const auto& phases() {
  static const auto all = words(std::array{Phase::kPending, Phase::kStarting, Phase::kRunning, Phase::kRecovering,
                                           Phase::kSuspended, Phase::kSucceeded, Phase::kFailed});
  return all;
}
const auto& causes() {
  static const auto all =
      words(std::array{Cause::kRankCrash, Cause::kLauncherDeath, Cause::kHang, Cause::kGpuFault, Cause::kEfaFault,
                       Cause::kNodeLoss, Cause::kPlanned, Cause::kProgram, Cause::kUnknown});
  return all;
}
const auto& rungs() {
  static const auto all = words(std::array{Rung::kInPlace, Rung::kRelaunched, Rung::kSpareTaken, Rung::kRecreated,
                                           Rung::kShrunk, Rung::kReleased, Rung::kFailed});
  return all;
}

void put(Json& json, const char* key, const std::string& value) {
  if (!value.empty()) json[key] = value;
}
// Times that recoveries are measured by are kept to the microsecond.
void put(Json& json, const char* key, const std::optional<Instant>& value) {
  if (value) json[key] = to_rfc3339(*value, 6);
}
template <typename T>
void put(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}
template <typename Tag, typename T>
void put(Json& json, const char* key, const std::optional<Strong<Tag, T>>& value) {
  if (value) json[key] = value->value;
}

Json write(const ReplayStatus& replay) {
  return {{"step", replay.step.value},
          {"rank", replay.rank.value},
          {"node", replay.node},
          {"digest", replay.digest},
          {"ranks", replay.ranks}};
}

void read(ObjectReader& r, ReplayStatus& replay) {
  r.read("step", replay.step);
  r.read("rank", replay.rank);
  r.read("node", replay.node);
  r.read("digest", replay.digest);
  r.read("ranks", replay.ranks);
}

Json write(const EpochStatus& epoch) {
  Json json{{"number", epoch.number.value}, {"term", epoch.term.value}};
  if (epoch.port != 0) json["port"] = epoch.port;
  put(json, "resumeStep", epoch.resume_step);
  put(json, "resumePlace", epoch.resume_place);
  if (epoch.resume_claim != 0) json["resumeClaim"] = epoch.resume_claim;
  put(json, "committed", epoch.committed);
  if (epoch.replay) json["replay"] = write(*epoch.replay);
  return json;
}

void read(ObjectReader& r, EpochStatus& epoch) {
  r.read("number", epoch.number);
  r.read("term", epoch.term);
  r.read("port", epoch.port);
  r.read("resumeStep", epoch.resume_step);
  r.read("resumePlace", epoch.resume_place);
  r.read("resumeClaim", epoch.resume_claim);
  r.read("committed", epoch.committed);
  if (auto replay = r.object("replay")) read(*replay, epoch.replay.emplace());
}

Json write(const SlotStatus& slot) {
  Json json{{"slot", slot.slot.value}, {"serial", slot.serial.value}, {"firstRank", slot.first_rank.value}};
  put(json, "podUid", slot.pod_uid);
  put(json, "node", slot.node);
  put(json, "address", slot.address);
  return json;
}

void read(ObjectReader& r, SlotStatus& slot) {
  r.read("slot", slot.slot);
  r.read("serial", slot.serial);
  r.read("firstRank", slot.first_rank);
  r.read("podUid", slot.pod_uid);
  r.read("node", slot.node);
  r.read("address", slot.address);
}

Json write(const PodRecord& pod) {
  Json json{{"serial", pod.serial.value}};
  put(json, "slot", pod.slot);
  put(json, "node", pod.node);
  return json;
}

void read(ObjectReader& r, PodRecord& pod) {
  r.read("serial", pod.serial);
  r.read("slot", pod.slot);
  r.read("node", pod.node);
}

Json write(const ProgressStatus& progress) {
  Json json{{"samples", progress.samples}, {"tokensPerSecond", progress.tokens_per_second}};
  put(json, "step", progress.step);
  if (progress.total_steps != 0) json["totalSteps"] = progress.total_steps;
  put(json, "loss", progress.loss);
  put(json, "eta", progress.eta);
  put(json, "updated", progress.updated);
  return json;
}

void read(ObjectReader& r, ProgressStatus& progress) {
  r.read("step", progress.step);
  r.read("totalSteps", progress.total_steps);
  r.read("samples", progress.samples);
  r.read("tokensPerSecond", progress.tokens_per_second);
  r.read("loss", progress.loss);
  r.read("eta", progress.eta);
  r.read("updated", progress.updated);
}

Json write(const CheckpointStatus& checkpoint) {
  Json json = Json::object();
  if (checkpoint.durable_step) {
    Json& durable = json["durable"];
    put(durable, "step", checkpoint.durable_step);
    put(durable, "time", checkpoint.durable_time);
    put(durable, "path", checkpoint.durable_path);
    durable["bytes"] = checkpoint.durable_bytes;
  }
  if (checkpoint.memory_step) {
    Json& memory = json["memory"];
    put(memory, "step", checkpoint.memory_step);
    put(memory, "time", checkpoint.memory_time);
  }
  return json;
}

void read(ObjectReader& r, CheckpointStatus& checkpoint) {
  if (auto durable = r.object("durable")) {
    durable->read("step", checkpoint.durable_step);
    durable->read("time", checkpoint.durable_time);
    durable->read("path", checkpoint.durable_path);
    durable->read("bytes", checkpoint.durable_bytes);
  }
  if (auto memory = r.object("memory")) {
    memory->read("step", checkpoint.memory_step);
    memory->read("time", checkpoint.memory_time);
  }
}

Json write(const GoodputStatus& goodput) {
  // `kubectl get` shows a number with all its digits.
  return {{"ratio", std::round(goodput.ratio() * 1e4) / 1e4},
          {"training", goodput.training},
          {"starting", goodput.starting},
          {"restoring", goodput.restoring},
          {"stalled", goodput.stalled},
          {"redone", goodput.redone},
          {"queued", goodput.queued}};
}

void read(ObjectReader& r, GoodputStatus& goodput) {
  r.read("training", goodput.training);
  r.read("starting", goodput.starting);
  r.read("restoring", goodput.restoring);
  r.read("stalled", goodput.stalled);
  r.read("redone", goodput.redone);
  r.read("queued", goodput.queued);
}

Json write(const RestartsStatus& restarts) {
  return {{"total", restarts.total},
          {"inPlace", restarts.in_place},
          {"replaced", restarts.replaced},
          {"recreated", restarts.recreated}};
}

void read(ObjectReader& r, RestartsStatus& restarts) {
  r.read("total", restarts.total);
  r.read("inPlace", restarts.in_place);
  r.read("replaced", restarts.replaced);
  r.read("recreated", restarts.recreated);
}

Json write(const RequestStatus& request) {
  Json json{{"id", request.id}, {"verb", request.verb}, {"state", request.state}};
  put(json, "message", request.message);
  put(json, "time", request.time);
  return json;
}

void read(ObjectReader& r, RequestStatus& request) {
  r.read("id", request.id);
  r.read("verb", request.verb);
  r.read("state", request.state);
  r.read("message", request.message);
  r.read("time", request.time);
}

Json write(const Recovery& recovery) {
  Json json{{"cause", to_string(recovery.cause)}, {"rung", to_string(recovery.rung)}, {"epoch", recovery.epoch}};
  put(json, "evidence", recovery.evidence);
  put(json, "node", recovery.node);
  put(json, "rank", recovery.rank);
  put(json, "stepsLost", recovery.steps_lost);
  put(json, "happened", recovery.happened);
  put(json, "detected", recovery.detected);
  put(json, "decided", recovery.decided);
  put(json, "ready", recovery.ready);
  put(json, "restored", recovery.restored);
  put(json, "firstStep", recovery.first_step);
  return json;
}

void read(ObjectReader& r, Recovery& recovery) {
  r.read_enum("cause", recovery.cause, causes());
  r.read_enum("rung", recovery.rung, rungs());
  r.read("epoch", recovery.epoch);
  r.read("evidence", recovery.evidence);
  r.read("node", recovery.node);
  r.read("rank", recovery.rank);
  r.read("stepsLost", recovery.steps_lost);
  r.read("happened", recovery.happened);
  r.read("detected", recovery.detected);
  r.read("decided", recovery.decided);
  r.read("ready", recovery.ready);
  r.read("restored", recovery.restored);
  r.read("firstStep", recovery.first_step);
}

Json write(const FailureRecord& failure) {
  Json json{
      {"time", to_rfc3339(failure.time, 6)}, {"cause", to_string(failure.cause)}, {"rung", to_string(failure.rung)}};
  put(json, "node", failure.node);
  put(json, "fingerprint", failure.fingerprint);
  return json;
}

void read(ObjectReader& r, FailureRecord& failure) {
  r.read("time", failure.time);
  r.read_enum("cause", failure.cause, causes());
  r.read_enum("rung", failure.rung, rungs());
  r.read("node", failure.node);
  r.read("fingerprint", failure.fingerprint);
}

template <typename T>
void write_list(Json& json, const char* key, const std::vector<T>& list) {
  if (list.empty()) return;
  Json& array = json[key] = Json::array();
  for (const T& element : list) array.push_back(write(element));
}

template <typename T>
void read_list(ObjectReader& r, std::string_view key, std::vector<T>& list) {
  r.each(key, [&](const Json& value, const std::string& path) {
    ObjectReader element(value, path, r.problems());
    read(element, list.emplace_back());
  });
}

template <typename T>
void read_part(ObjectReader& r, std::string_view key, T& part) {
  if (auto object = r.object(key)) read(*object, part);
}

}  // namespace

Json write_status(const TrainingJobStatus& status) {
  Json json{{"phase", to_string(status.phase)},
            {"epoch", write(status.epoch)},
            {"nextSerial", status.next_serial.value},
            {"replicas", {{"desired", status.desired}, {"ready", status.ready}, {"spare", status.spare}}},
            {"progress", write(status.progress)},
            {"checkpoint", write(status.checkpoint)},
            {"goodput", write(status.goodput)},
            {"restarts", write(status.restarts)},
            {"observedGeneration", status.observed_generation}};
  for (const Condition& condition : status.conditions) json["conditions"].push_back(to_json(condition));
  write_list(json, "slots", status.slots);
  write_list(json, "pods", status.pods);
  put(json, "startTime", status.start_time);
  put(json, "completionTime", status.completion_time);
  write_list(json, "requests", status.requests);
  write_list(json, "recoveries", status.recoveries);
  write_list(json, "failures", status.failures);
  if (!status.avoided_nodes.empty()) json["avoidedNodes"] = status.avoided_nodes;
  for (const auto& [name, time] : status.marks) json["marks"][name] = to_rfc3339(time, 6);
  return json;
}

void read_status(const Json& json, TrainingJobStatus& status, Problems& problems) {
  ObjectReader r(json, "status", problems);
  r.read_enum("phase", status.phase, phases());
  r.each("conditions", [&](const Json& value, const std::string& path) {
    read_condition(value, path, status.conditions.emplace_back(), problems);
  });
  read_part(r, "epoch", status.epoch);
  read_list(r, "slots", status.slots);
  read_list(r, "pods", status.pods);
  r.read("nextSerial", status.next_serial);
  if (auto replicas = r.object("replicas")) {
    replicas->read("desired", status.desired);
    replicas->read("ready", status.ready);
    replicas->read("spare", status.spare);
  }
  read_part(r, "progress", status.progress);
  read_part(r, "checkpoint", status.checkpoint);
  read_part(r, "goodput", status.goodput);
  read_part(r, "restarts", status.restarts);
  r.read("observedGeneration", status.observed_generation);
  r.read("startTime", status.start_time);
  r.read("completionTime", status.completion_time);
  read_list(r, "requests", status.requests);
  read_list(r, "recoveries", status.recoveries);
  read_list(r, "failures", status.failures);
  r.read("avoidedNodes", status.avoided_nodes);
  if (const Json* marks = r.raw("marks"); marks != nullptr && marks->is_object()) {
    for (const auto& [name, value] : marks->items()) {
      const auto time = value.is_string() ? parse_rfc3339(value.get_ref<const std::string&>())
                                          : Result<Instant>(Error(Code::kInvalidArgument, ""));
      if (time) status.marks[name] = *time;
    }
  }
}

}  // namespace pitcrew::api::codec
