#include "lib/api/node_health.hpp"

#include <algorithm>

#include "lib/api/training_job.hpp"

namespace pitcrew::api {
namespace {

const std::vector<std::pair<std::string_view, HealthChange>> kChanges = {{"Raised", HealthChange::kRaised},
                                                                         {"Cleared", HealthChange::kCleared}};
const std::vector<std::pair<std::string_view, HealthSeverity>> kSeverities = {
    {"Info", HealthSeverity::kInfo}, {"Warning", HealthSeverity::kWarning}, {"Fault", HealthSeverity::kFault}};
const std::vector<std::pair<std::string_view, HealthAction>> kActions = {{"None", HealthAction::kNone},
                                                                         {"Restart", HealthAction::kRestart},
                                                                         {"Reset", HealthAction::kReset},
                                                                         {"Reboot", HealthAction::kReboot},
                                                                         {"Replace", HealthAction::kReplace}};

const std::vector<std::pair<std::string_view, CheckOutcome>> kOutcomes = {
    {"Passed", CheckOutcome::kPassed}, {"Failed", CheckOutcome::kFailed}, {"Unknown", CheckOutcome::kUnknown}};

// Reads every element of the list `key` by `read`, which gets a reader of the element.
template <typename T, typename Read>
void read_list(ObjectReader& reader, std::string_view key, std::vector<T>& out, Read read) {
  reader.each(key, [&](const Json& json, const std::string& path) {
    ObjectReader element(json, path, reader.problems());
    read(element, out.emplace_back());
    element.finish();
  });
}

void read_status(ObjectReader& reader, NodeHealthStatus& status) {
  reader.read("healthy", status.healthy);
  reader.read_enum("needs", status.needs, kActions);
  reader.read("message", status.message);
  reader.read("bootID", status.boot_id);
  read_list(reader, "gpus", status.gpus, [](ObjectReader& gpu, GpuIdentity& out) {
    gpu.read("uuid", out.uuid);
    gpu.read("serial", out.serial);
    gpu.read("pci", out.pci);
    gpu.read("model", out.model);
  });
  read_list(reader, "verdicts", status.verdicts, [](ObjectReader& verdict, HealthVerdict& out) {
    verdict.read("rule", out.rule);
    verdict.read("device", out.device);
    verdict.read_enum("severity", out.severity, kSeverities);
    verdict.read("certain", out.certain);
    verdict.read_enum("action", out.action, kActions);
    verdict.read("message", out.message);
    verdict.read("since", out.since);
    verdict.read("last", out.last);
    verdict.read("count", out.count);
  });
  read_list(reader, "history", status.history, [](ObjectReader& event, HealthEvent& out) {
    event.read("time", out.time);
    event.read("rule", out.rule);
    event.read("device", out.device);
    event.read_enum("change", out.change, kChanges);
    event.read("message", out.message);
    event.read_enum("severity", out.severity, kSeverities);
  });
  read_list(reader, "rates", status.rates, [](ObjectReader& rate, DeviceRate& out) {
    rate.read("device", out.device);
    rate.read("counter", out.counter);
    rate.read("perSecond", out.per_second);
    rate.read("time", out.time);
  });
  reader.read("memory", status.memory);
  read_list(reader, "checks", status.checks, [](ObjectReader& check, CheckResult& out) {
    check.read("id", out.id);
    check.read("test", out.test);
    check.read_enum("outcome", out.outcome, kOutcomes);
    check.read("message", out.message);
    check.read("time", out.time);
  });
  reader.finish();
}

Json write_status(const NodeHealthStatus& status) {
  Json json{{"healthy", status.healthy}, {"needs", to_string(status.needs)}};
  if (!status.message.empty()) json["message"] = status.message;
  if (!status.boot_id.empty()) json["bootID"] = status.boot_id;
  if (!status.memory.empty()) json["memory"] = status.memory;
  for (const GpuIdentity& gpu : status.gpus) {
    json["gpus"].push_back({{"uuid", gpu.uuid}, {"serial", gpu.serial}, {"pci", gpu.pci}, {"model", gpu.model}});
  }
  for (const HealthVerdict& verdict : status.verdicts) {
    json["verdicts"].push_back({{"rule", verdict.rule},
                                {"device", verdict.device},
                                {"severity", to_string(verdict.severity)},
                                {"certain", verdict.certain},
                                {"action", to_string(verdict.action)},
                                {"message", verdict.message},
                                {"since", to_rfc3339(verdict.since, 3)},
                                {"last", to_rfc3339(verdict.last, 3)},
                                {"count", verdict.count}});
  }
  for (const HealthEvent& event : status.history) {
    json["history"].push_back({{"time", to_rfc3339(event.time, 3)},
                               {"rule", event.rule},
                               {"device", event.device},
                               {"change", to_string(event.change)},
                               {"message", event.message},
                               {"severity", to_string(event.severity)}});
  }
  for (const DeviceRate& rate : status.rates) {
    json["rates"].push_back({{"device", rate.device},
                             {"counter", rate.counter},
                             {"perSecond", rate.per_second},
                             {"time", to_rfc3339(rate.time, 3)}});
  }
  for (const CheckResult& check : status.checks) {
    json["checks"].push_back({{"id", check.id},
                              {"test", check.test},
                              {"outcome", to_string(check.outcome)},
                              {"message", check.message},
                              {"time", to_rfc3339(check.time, 3)}});
  }
  return json;
}

}  // namespace

std::string_view to_string(HealthChange change) { return change == HealthChange::kRaised ? "Raised" : "Cleared"; }

std::string_view to_string(CheckOutcome outcome) {
  switch (outcome) {
    case CheckOutcome::kPassed:
      return "Passed";
    case CheckOutcome::kFailed:
      return "Failed";
    case CheckOutcome::kSkipped:
      return "Skipped";
    case CheckOutcome::kUnknown:
      return "Unknown";
  }
  return "Unknown";
}

const ResourceType& NodeHealth::type() {
  static const ResourceType type{kGroup, kVersion, "NodeHealth", "nodehealths", false};
  return type;
}

Json NodeHealth::encode() const {
  Json spec_json{{"nodeName", spec.node_name}, {"nodeUID", spec.node_uid}};
  if (!spec.provider_id.empty()) spec_json["providerID"] = spec.provider_id;
  Json json = object_head(type(), metadata);
  json["spec"] = std::move(spec_json);
  if (status != NodeHealthStatus{}) json["status"] = write_status(status);
  return json;
}

NodeHealth decode_node_health(const Json& json, Problems& problems) {
  NodeHealth health;
  ObjectReader reader(json, "", problems);
  read_object_head(reader, NodeHealth::type(), health.metadata, problems, "name it after the instance");
  if (auto spec = reader.object("spec")) {
    spec->read("providerID", health.spec.provider_id);
    spec->read("nodeUID", health.spec.node_uid);
    spec->read("nodeName", health.spec.node_name);
    spec->finish();
  } else {
    reader.problem("spec", "is missing");
  }
  if (auto status = reader.object("status")) read_status(*status, health.status);
  reader.finish();
  return health;
}

void validate(const NodeHealth& health, Problems& problems) {
  if (health.spec.provider_id.empty() && health.spec.node_uid.empty()) {
    problems.push_back({"spec", "needs providerID or nodeUID; a node's name is not its identity"});
  } else if (health.metadata.name != node_health_name(health.spec)) {
    problems.push_back({"metadata.name", "must be " + node_health_name(health.spec) + ", after the instance"});
  }
  if (health.status.history.size() > NodeHealth::kMaxHistory) {
    problems.push_back(
        {"status.history", "holds more than " + std::to_string(NodeHealth::kMaxHistory) + " events; drop the oldest"});
  }
  if (health.status.verdicts.size() > NodeHealth::kMaxVerdicts) {
    problems.push_back(
        {"status.verdicts", "are more than " + std::to_string(NodeHealth::kMaxVerdicts) + "; keep the most severe"});
  }
}

Result<NodeHealth> NodeHealth::decode(const Json& json) {
  Problems problems;
  NodeHealth health = decode_node_health(json, problems);
  validate(health, problems);
  if (problems.empty()) return health;
  return Error(Code::kInvalidArgument, "NodeHealth " + health.metadata.name + ": " + join(problems));
}

namespace {

// Results of the newest check; null: there was none.
const CheckResult* newest_check(const NodeHealthStatus& status) {
  const auto newest = std::max_element(status.checks.begin(), status.checks.end(),
                                       [](const auto& a, const auto& b) { return a.time < b.time; });
  return newest == status.checks.end() ? nullptr : &*newest;
}

}  // namespace

CheckOutcome checked(const NodeHealthStatus& status) {
  const CheckResult* newest = newest_check(status);
  CheckOutcome outcome = newest == nullptr ? CheckOutcome::kUnknown : CheckOutcome::kPassed;
  for (const CheckResult& check : status.checks) {
    if (check.id != newest->id) continue;
    if (check.outcome == CheckOutcome::kFailed) return CheckOutcome::kFailed;
    if (check.outcome != CheckOutcome::kPassed) outcome = CheckOutcome::kUnknown;
  }
  return outcome;
}

std::optional<Instant> unchecked_fault(const NodeHealthStatus& status) {
  std::optional<Instant> fault;
  for (const HealthEvent& event : status.history) {
    if (event.change != HealthChange::kRaised || event.severity != HealthSeverity::kFault) continue;
    fault = fault ? std::max(*fault, event.time) : event.time;
  }
  if (fault && checked(status) == CheckOutcome::kPassed && newest_check(status)->time > *fault) return std::nullopt;
  return fault;
}

std::string node_health_name(const NodeHealthSpec& spec) {
  if (spec.provider_id.empty()) return "node-" + spec.node_uid;
  const std::string id = spec.provider_id.substr(spec.provider_id.rfind('/') + 1);
  std::string name;
  for (const char c : id) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const bool fine = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
    name += fine || (lower == '-' && !name.empty()) ? lower : 'x';
  }
  if (!name.empty() && name.back() == '-') name.back() = 'x';
  return name.substr(0, 253);
}

}  // namespace pitcrew::api
