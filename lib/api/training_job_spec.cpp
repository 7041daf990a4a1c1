#include "lib/api/training_job_codec.hpp"

namespace pitcrew::api::codec {

using namespace nlohmann::literals;

namespace {

// A field of the published schema that this version does not implement: refused by name, never dropped.
void refuse(ObjectReader& reader, std::string_view key, std::string_view remedy) {
  if (reader.raw(key) != nullptr) {
    reader.problem(key, "is not supported by this version of Pitcrew; " + std::string(remedy));
  }
}

// {every: {steps: n}}, {every: {time: 10m}} or {every: {auto: true}}
void read_interval(ObjectReader& reader, Interval& every) {
  reader.read("steps", every.steps);
  reader.read("time", every.time);
  reader.read("auto", every.automatic);
  if (!reader.has("steps") && !reader.has("time") && !reader.has("auto")) {
    reader.problems().push_back({reader.path(), "needs steps, time or auto: true"});
  } else if (reader.has("auto") && !every.automatic && !reader.has("steps") && !reader.has("time")) {
    reader.problem("auto", "is false; write auto: true, steps or time");
  }
  reader.finish();
}

void read_memory(ObjectReader& reader, MemoryTier& memory) {
  if (auto every = reader.object("every")) {
    every->read("steps", memory.every_steps);
    refuse(*every, "time", "memory checkpoints are counted in steps: every: {steps: 20}");
    every->finish();
  }
  reader.read("copies", memory.copies);
  if (const Json* size = reader.raw("size")) {
    if (size->is_number_unsigned()) {
      memory.size = size->get<uint64_t>();
    } else if (size->is_string()) {
      const std::string& text = size->get_ref<const std::string&>();
      static constexpr std::pair<std::string_view, uint64_t> kSuffixes[] = {
          {"Ki", 1ull << 10}, {"Mi", 1ull << 20},  {"Gi", 1ull << 30},      {"Ti", 1ull << 40},
          {"k", 1'000ull},    {"M", 1'000'000ull}, {"G", 1'000'000'000ull}, {"T", 1'000'000'000'000ull}};
      size_t digits = 0;
      uint64_t number = 0;
      while (digits < text.size() && digits < 12 && text[digits] >= '0' && text[digits] <= '9') {
        number = number * 10 + static_cast<uint64_t>(text[digits++] - '0');
      }
      const std::string_view suffix = std::string_view(text).substr(digits);
      uint64_t unit = suffix.empty() ? 1 : 0;
      for (const auto& [name, bytes] : kSuffixes) {
        if (suffix == name) unit = bytes;
      }
      if (text != "auto" && (digits == 0 || unit == 0 || number > (1ull << 60) / unit)) {
        reader.problem("size", "'" + text + "' is not a size; write auto, or a quantity like 16Gi");
      } else if (text != "auto") {
        memory.size = number * unit;
      }
    } else {
      reader.problem("size", "must be auto or a quantity like 16Gi");
    }
  }
  reader.finish();
}

void read_checkpoint(ObjectReader& reader, CheckpointSpec& checkpoint) {
  reader.read("path", checkpoint.path);
  const Json* path = reader.raw("path");
  if (path == nullptr || (path->is_string() && checkpoint.path.empty())) {
    reader.problem(
        "path",
        "is missing; name the folder where checkpoints go, on a volume that all replicas mount, or s3://bucket/prefix");
  }
  if (auto every = reader.object("every")) read_interval(*every, checkpoint.every.emplace());
  if (auto memory = reader.object("memory")) read_memory(*memory, checkpoint.memory.emplace());
  reader.read("keep", checkpoint.keep);
  reader.finish();
}

void read_limit(ObjectReader& reader, std::string_view key, std::string_view count_key, Limit& limit) {
  auto object = reader.object(key);
  if (!object) return;
  object->read(count_key, limit.count);
  object->read("window", limit.window);
  object->finish();
}

void read_rule(const Json& json, const std::string& path, RecoveryRule& rule, Problems& problems) {
  ObjectReader reader(json, path, problems);
  if (auto match = reader.object("match")) {
    match->each("exitCodes", [&](const Json& code, const std::string& code_path) {
      if (code.is_number_integer()) {
        rule.exit_codes.push_back(code.get<int>());
      } else {
        problems.push_back({code_path, "must be an exit code, a whole number"});
      }
    });
    match->read("log", rule.log);
    match->finish();
  }
  if (!reader.read_enum("action", rule.action, {{"Restart", RuleAction::kRestart}, {"Fail", RuleAction::kFail}}) &&
      !reader.has("action")) {
    reader.problem("action", "is missing; say Restart or Fail");
  }
  reader.finish();
}

void read_recovery(ObjectReader& reader, RecoverySpec& recovery) {
  read_limit(reader, "limit", "restarts", recovery.restarts);
  read_limit(reader, "inPlace", "limit", recovery.in_place);
  reader.read("waitInPlace", recovery.wait_in_place);
  if (auto avoid = reader.object("avoidNodes")) {
    avoid->read("afterFailures", recovery.avoid_after_failures);
    avoid->read("limit", recovery.avoid_limit);
    avoid->finish();
  }
  reader.each("rules", [&](const Json& rule, const std::string& path) {
    read_rule(rule, path, recovery.rules.emplace_back(), reader.problems());
  });
  reader.finish();
}

// "70%". Not a number, which an API server can't tell from text in the same place.
void read_share(ObjectReader& reader, std::string_view key, double& share) {
  const Json* value = reader.raw(key);
  if (value == nullptr) return;
  const std::string text = value->is_string() ? value->get<std::string>() : "";
  char* end = nullptr;
  const double percent = text.empty() ? 0 : std::strtod(text.c_str(), &end);
  if (end == nullptr || std::string_view(end) != "%") {
    reader.problem(key, "must be a share like 70%");
    return;
  }
  share = percent / 100;
}

void read_monitoring(ObjectReader& reader, MonitoringSpec& monitoring) {
  if (auto progress = reader.object("progress")) {
    const Json* stall = progress->raw("stallAfter");
    if (stall != nullptr && *stall != "auto") {
      Duration limit{0};
      if (progress->read("stallAfter", limit)) monitoring.stall_after = limit;
    }
    progress->read("startWithin", monitoring.start_within);
    read_share(*progress, "slowBelow", monitoring.slow_below);
    progress->finish();
  }
  refuse(reader, "rules",
         "remove it; hangs are found from the progress page, and recovery.rules match log lines of a failure");
  reader.finish();
}

void read_placement(ObjectReader& reader, PlacementSpec& placement) {
  if (auto capacity = reader.object("capacity")) {
    capacity->read_enum("mode", placement.capacity,
                        {{"Existing", CapacityMode::kExisting}, {"Provision", CapacityMode::kProvision}});
    refuse(*capacity, "order", "remove it; nodes are taken as they fit");
    refuse(*capacity, "reservation", "remove it; select the reservation's nodes in the template's nodeSelector");
    capacity->finish();
  }
  reader.read("gangTimeout", placement.gang_timeout);
  refuse(reader, "topology", "remove it; use affinity in the template");
  refuse(reader, "queue", "remove it; the job is admitted when its gang fits");
  reader.read("priorityClassName", placement.priority_class);
  reader.finish();
}

void read_lifecycle(ObjectReader& reader, LifecycleSpec& lifecycle) {
  reader.read("suspend", lifecycle.suspend);
  reader.read("activeDeadline", lifecycle.active_deadline);
  reader.read("startDeadline", lifecycle.start_deadline);
  reader.read("warnBefore", lifecycle.warn_before);
  reader.read("ttlAfterFinished", lifecycle.ttl_after_finished);
  reader.finish();
}

std::string write_share(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.12g%%", share * 100);
  return text;
}

Json write_limit(const char* count_key, const Limit& limit) {
  return {{count_key, limit.count}, {"window", to_string(limit.window)}};
}

// The name of a pod template's first container; empty where there is none, which validate() complains about.
std::string first_container(const Json& pod_template) {
  const auto pointer = "/spec/containers/0/name"_json_pointer;
  if (!pod_template.contains(pointer) || !pod_template.at(pointer).is_string()) return "";
  return pod_template.at(pointer).get<std::string>();
}

Json write_checkpoint(const CheckpointSpec& checkpoint) {
  Json json{{"path", checkpoint.path}, {"keep", checkpoint.keep}};
  if (checkpoint.every && checkpoint.every->steps) json["every"]["steps"] = *checkpoint.every->steps;
  if (checkpoint.every && checkpoint.every->time) json["every"]["time"] = to_string(*checkpoint.every->time);
  if (checkpoint.every && checkpoint.every->automatic) json["every"]["auto"] = true;
  if (checkpoint.memory) {
    json["memory"] = {{"every", {{"steps", checkpoint.memory->every_steps}}}, {"copies", checkpoint.memory->copies}};
    if (checkpoint.memory->size) {
      json["memory"]["size"] = *checkpoint.memory->size;
    } else {
      json["memory"]["size"] = "auto";
    }
  }
  return json;
}

Json write_recovery(const RecoverySpec& recovery) {
  Json json{{"limit", write_limit("restarts", recovery.restarts)},
            {"inPlace", write_limit("limit", recovery.in_place)},
            {"waitInPlace", to_string(recovery.wait_in_place)},
            {"avoidNodes", {{"afterFailures", recovery.avoid_after_failures}, {"limit", recovery.avoid_limit}}}};
  for (const RecoveryRule& rule : recovery.rules) {
    Json match = Json::object();
    if (!rule.exit_codes.empty()) match["exitCodes"] = rule.exit_codes;
    if (!rule.log.empty()) match["log"] = rule.log;
    json["rules"].push_back({{"match", match}, {"action", to_string(rule.action)}});
  }
  return json;
}

Json write_lifecycle(const LifecycleSpec& lifecycle) {
  Json json{{"suspend", lifecycle.suspend}, {"warnBefore", to_string(lifecycle.warn_before)}};
  if (lifecycle.active_deadline) json["activeDeadline"] = to_string(*lifecycle.active_deadline);
  if (lifecycle.start_deadline) json["startDeadline"] = to_string(*lifecycle.start_deadline);
  if (lifecycle.ttl_after_finished) json["ttlAfterFinished"] = to_string(*lifecycle.ttl_after_finished);
  return json;
}

}  // namespace

void read_spec(const Json& json, TrainingJobSpec& spec, Problems& problems) {
  ObjectReader reader(json, "spec", problems);
  reader.read("replicas", spec.replicas);
  reader.read("spares", spec.spares);
  refuse(reader, "elastic", "remove it; use spares");
  if (const Json* processes = reader.raw("processesPerReplica"); processes != nullptr && *processes != "auto") {
    reader.read("processesPerReplica", spec.processes_per_replica);
  }
  reader.read("container", spec.container);
  if (const Json* pod_template = reader.raw("template")) {
    spec.pod_template = *pod_template;
    if (spec.container.empty()) spec.container = first_container(*pod_template);
  } else {
    reader.problem("template", "is missing; give the pod template of a replica");
  }
  if (auto checkpoint = reader.object("checkpoint")) read_checkpoint(*checkpoint, spec.checkpoint.emplace());
  if (auto recovery = reader.object("recovery")) read_recovery(*recovery, spec.recovery);
  if (auto monitoring = reader.object("monitoring")) read_monitoring(*monitoring, spec.monitoring);
  if (auto placement = reader.object("placement")) read_placement(*placement, spec.placement);
  refuse(reader, "source", "mount the volume in the template and put the path into command");
  refuse(reader, "evaluation", "evaluate in the training program");
  refuse(reader, "dependsOn", "apply this job when the other has succeeded");
  refuse(reader, "tracking", "start the tracking run in the training program");
  if (auto lifecycle = reader.object("lifecycle")) read_lifecycle(*lifecycle, spec.lifecycle);
  reader.finish();
}

Json write_spec(const TrainingJobSpec& spec) {
  Json json{{"replicas", spec.replicas},
            {"spares", spec.spares},
            {"template", spec.pod_template},
            {"recovery", write_recovery(spec.recovery)},
            {"lifecycle", write_lifecycle(spec.lifecycle)}};
  if (spec.processes_per_replica) {
    json["processesPerReplica"] = *spec.processes_per_replica;
  } else {
    json["processesPerReplica"] = "auto";
  }
  if (!spec.container.empty()) json["container"] = spec.container;
  if (spec.checkpoint) json["checkpoint"] = write_checkpoint(*spec.checkpoint);
  const MonitoringSpec& monitoring = spec.monitoring;
  json["monitoring"]["progress"] = {
      {"stallAfter", monitoring.stall_after ? to_string(*monitoring.stall_after) : "auto"},
      {"startWithin", to_string(monitoring.start_within)},
      {"slowBelow", write_share(monitoring.slow_below)}};
  const char* mode = spec.placement.capacity == CapacityMode::kProvision ? "Provision" : "Existing";
  json["placement"] = {{"capacity", {{"mode", mode}}}, {"gangTimeout", to_string(spec.placement.gang_timeout)}};
  if (!spec.placement.priority_class.empty()) json["placement"]["priorityClassName"] = spec.placement.priority_class;
  return json;
}

}  // namespace pitcrew::api::codec
