#include "lib/kube/types/pod.hpp"

#include <algorithm>

#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/quantity.hpp"

namespace pitcrew::kube {
namespace {

PodPhase parse_phase(const std::string& text) {
  if (text == "Running") return PodPhase::kRunning;
  if (text == "Succeeded") return PodPhase::kSucceeded;
  if (text == "Failed") return PodPhase::kFailed;
  if (text == "Unknown") return PodPhase::kUnknown;
  return PodPhase::kPending;
}

void read_tolerations(const Json& spec, std::vector<Toleration>& out) {
  fields::each(fields::find(spec, "tolerations"), [&](const Json& value) {
    Toleration& toleration = out.emplace_back();
    fields::read(value, "key", toleration.key);
    fields::read(value, "operator", toleration.operation);
    if (toleration.operation.empty()) toleration.operation = "Equal";
    fields::read(value, "value", toleration.value);
    fields::read(value, "effect", toleration.effect);
  });
}

// The one node of a required affinity to metadata.name, or "".
std::string read_required_node(const Json& spec) {
  const Json* affinity = fields::find(spec, "affinity", "nodeAffinity");
  if (affinity == nullptr) return "";
  const Json* terms = fields::find(*affinity, "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms");
  std::string node;
  fields::each(terms, [&](const Json& term) {
    fields::each(fields::find(term, "matchFields"), [&](const Json& field) {
      std::string key;
      fields::read(field, "key", key);
      std::vector<std::string> values;
      fields::read(field, "values", values);
      if (key == "metadata.name" && values.size() == 1) node = values.front();
    });
  });
  return node;
}

void raise_to(Resources& out, const Resources& least) {
  for (const auto& [name, amount] : least) {
    int64_t& value = out[name];
    value = std::max(value, amount);
  }
}

Resources container_requests(const Json& container) {
  Resources requests;
  const Json* resources = fields::find(container, "resources");
  if (resources == nullptr) return requests;
  if (const Json* asked = fields::find(*resources, "requests")) add_quantities(*asked, requests);
  // A limit without a request is a request too, as the API server defaults it.
  Resources limits;
  if (const Json* limited = fields::find(*resources, "limits")) add_quantities(*limited, limits);
  requests.insert(limits.begin(), limits.end());
  return requests;
}

void add(Resources& out, const Resources& more) {
  for (const auto& [name, amount] : more) out[name] += amount;
}

// Containers and sidecars together, or the largest init container with the sidecars before it (KEP-753).
Resources pod_requests(const Json& spec) {
  Resources sidecars;
  Resources starting;
  fields::each(fields::find(spec, "initContainers"), [&](const Json& container) {
    std::string restart_policy;
    fields::read(container, "restartPolicy", restart_policy);
    Resources needed = container_requests(container);
    if (restart_policy == "Always") {
      add(sidecars, needed);
      raise_to(starting, sidecars);
    } else {
      add(needed, sidecars);
      raise_to(starting, needed);
    }
  });
  Resources total = sidecars;
  fields::each(fields::find(spec, "containers"),
               [&](const Json& container) { add(total, container_requests(container)); });
  raise_to(total, starting);
  if (const Json* overhead = fields::find(spec, "overhead")) add_quantities(*overhead, total);
  return total;
}

std::optional<Termination> read_termination(const Json* state) {
  const Json* ended = state == nullptr ? nullptr : fields::find(*state, "terminated");
  if (ended == nullptr) return std::nullopt;
  Termination termination;
  fields::read(*ended, "exitCode", termination.exit_code);
  fields::read(*ended, "signal", termination.signal);
  fields::read(*ended, "reason", termination.reason);
  fields::read(*ended, "message", termination.message);
  fields::read(*ended, "finishedAt", termination.finished);
  return termination;
}

ContainerStatus read_container(const Json& json) {
  ContainerStatus container;
  fields::read(json, "name", container.name);
  fields::read(json, "ready", container.ready);
  fields::read(json, "restartCount", container.restarts);
  const Json* state = fields::find(json, "state");
  if (state != nullptr) {
    const Json* running = fields::find(*state, "running");
    container.running = running != nullptr;
    if (running != nullptr) fields::read(*running, "startedAt", container.started);
    if (const Json* waiting = fields::find(*state, "waiting")) {
      fields::read(*waiting, "reason", container.waiting_reason);
      fields::read(*waiting, "message", container.waiting_message);
    }
  }
  container.terminated = read_termination(state);
  container.last_terminated = read_termination(fields::find(json, "lastState"));
  return container;
}

// Names of the init containers that run beside all others (KEP-753).
std::vector<std::string> sidecars(const Json& spec) {
  std::vector<std::string> names;
  fields::each(fields::find(spec, "initContainers"), [&](const Json& container) {
    std::string name, restart_policy;
    fields::read(container, "name", name);
    fields::read(container, "restartPolicy", restart_policy);
    if (restart_policy == "Always") names.push_back(std::move(name));
  });
  return names;
}

void read_initializing(const Json& status, const std::vector<std::string>& sidecars, Pod& pod) {
  fields::each(fields::find(status, "initContainerStatuses"), [&](const Json& json) {
    ContainerStatus container = read_container(json);
    bool started = false;
    fields::read(json, "started", started);
    const bool sidecar = std::find(sidecars.begin(), sidecars.end(), container.name) != sidecars.end();
    const bool through = sidecar ? started : container.terminated && container.terminated->exit_code == 0;
    if (!through) pod.initializing.push_back(std::move(container));
  });
}

void read_status(const Json& status, Pod& pod) {
  std::string phase;
  fields::read(status, "phase", phase);
  pod.phase = parse_phase(phase);
  fields::read(status, "reason", pod.reason);
  fields::read(status, "message", pod.message);
  fields::read(status, "hostIP", pod.host_ip);
  fields::read(status, "podIP", pod.pod_ip);
  fields::read(status, "startTime", pod.start_time);
  fields::each(fields::find(status, "containerStatuses"),
               [&](const Json& container) { pod.containers.push_back(read_container(container)); });
  fields::each(fields::find(status, "conditions"), [&](const Json& condition) {
    std::string type;
    std::string value;
    fields::read(condition, "type", type);
    fields::read(condition, "status", value);
    if (type == "Ready") pod.ready = value == "True";
    if (type != "PodScheduled") return;
    pod.scheduled = value == "True";
    if (!pod.scheduled) fields::read(condition, "message", pod.unschedulable_message);
  });
}

Json termination_json(const Termination& termination) {
  Json json = {{"exitCode", termination.exit_code}};
  if (termination.signal != 0) json["signal"] = termination.signal;
  if (!termination.reason.empty()) json["reason"] = termination.reason;
  if (!termination.message.empty()) json["message"] = termination.message;
  if (termination.finished) json["finishedAt"] = to_rfc3339(*termination.finished);
  return json;
}

Json container_json(const ContainerStatus& container) {
  Json json = {{"name", container.name}, {"ready", container.ready}, {"restartCount", container.restarts}};
  Json state = Json::object();
  if (container.running) {
    state["running"] = Json::object();
    if (container.started) state["running"]["startedAt"] = to_rfc3339(*container.started);
  }
  if (!container.waiting_reason.empty()) {
    state["waiting"] = {{"reason", container.waiting_reason}, {"message", container.waiting_message}};
  }
  if (container.terminated) state["terminated"] = termination_json(*container.terminated);
  json["state"] = std::move(state);
  if (container.last_terminated) json["lastState"] = {{"terminated", termination_json(*container.last_terminated)}};
  return json;
}

Json spec_json(const Pod& pod) {
  Json spec = Json::object();
  if (!pod.node_name.empty()) spec["nodeName"] = pod.node_name;
  if (!pod.node_selector.empty()) spec["nodeSelector"] = pod.node_selector;
  if (!pod.priority_class.empty()) spec["priorityClassName"] = pod.priority_class;
  for (const Toleration& toleration : pod.tolerations) {
    Json json = {{"operator", toleration.operation}};
    if (!toleration.key.empty()) json["key"] = toleration.key;
    if (!toleration.value.empty()) json["value"] = toleration.value;
    if (!toleration.effect.empty()) json["effect"] = toleration.effect;
    spec["tolerations"].push_back(std::move(json));
  }
  if (!pod.required_node.empty()) {
    Json field = {{"key", "metadata.name"}, {"operator", "In"}, {"values", Json::array({pod.required_node})}};
    Json term = {{"matchFields", Json::array({std::move(field)})}};
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
        Json::array({std::move(term)});
  }
  Json container = {{"name", pod.containers.empty() ? "main" : pod.containers.front().name}};
  if (!pod.requests.empty()) container["resources"]["requests"] = quantities_json(pod.requests);
  spec["containers"] = Json::array({std::move(container)});
  return spec;
}

Json status_json(const Pod& pod) {
  Json status = {{"phase", to_string(pod.phase)}};
  if (!pod.reason.empty()) status["reason"] = pod.reason;
  if (!pod.message.empty()) status["message"] = pod.message;
  if (!pod.host_ip.empty()) status["hostIP"] = pod.host_ip;
  if (!pod.pod_ip.empty()) status["podIP"] = pod.pod_ip;
  if (pod.start_time) status["startTime"] = to_rfc3339(*pod.start_time);
  for (const ContainerStatus& container : pod.initializing) {
    status["initContainerStatuses"].push_back(container_json(container));
  }
  for (const ContainerStatus& container : pod.containers) {
    status["containerStatuses"].push_back(container_json(container));
  }
  Json scheduled = {{"type", "PodScheduled"}, {"status", pod.scheduled ? "True" : "False"}};
  if (!pod.unschedulable_message.empty()) {
    scheduled["reason"] = "Unschedulable";
    scheduled["message"] = pod.unschedulable_message;
  }
  status["conditions"] =
      Json::array({std::move(scheduled), {{"type", "Ready"}, {"status", pod.ready ? "True" : "False"}}});
  return status;
}

}  // namespace

std::string_view to_string(PodPhase phase) {
  switch (phase) {
    case PodPhase::kPending:
      return "Pending";
    case PodPhase::kRunning:
      return "Running";
    case PodPhase::kSucceeded:
      return "Succeeded";
    case PodPhase::kFailed:
      return "Failed";
    case PodPhase::kUnknown:
      return "Unknown";
  }
  return "Unknown";
}

const ResourceType& Pod::type() {
  static const ResourceType kType{"", "v1", "Pod", "pods", true};
  return kType;
}

Result<Pod> Pod::decode(const Json& json) {
  Pod pod;
  PITCREW_TRY(fields::read_meta(json, type(), pod.metadata));
  const Json* spec = fields::find(json, "spec");
  if (spec != nullptr) {
    fields::read(*spec, "nodeName", pod.node_name);
    fields::read(*spec, "nodeSelector", pod.node_selector);
    fields::read(*spec, "priorityClassName", pod.priority_class);
    read_tolerations(*spec, pod.tolerations);
    pod.required_node = read_required_node(*spec);
    pod.requests = pod_requests(*spec);
  }
  if (const Json* status = fields::find(json, "status")) {
    read_status(*status, pod);
    read_initializing(*status, spec != nullptr ? sidecars(*spec) : std::vector<std::string>(), pod);
  }
  return pod;
}

const JsonSelection& Pod::selection() {
  static const JsonSelection kSelection = fields::with_meta({
      "spec.nodeName",
      "spec.nodeSelector",
      "spec.tolerations",
      "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
      "spec.priorityClassName",
      "spec.overhead",
      "spec.containers.resources",
      "spec.initContainers.name",
      "spec.initContainers.resources",
      "spec.initContainers.restartPolicy",
      "status.phase",
      "status.reason",
      "status.message",
      "status.hostIP",
      "status.podIP",
      "status.startTime",
      "status.initContainerStatuses.name",
      "status.initContainerStatuses.ready",
      "status.initContainerStatuses.restartCount",
      "status.initContainerStatuses.started",
      "status.initContainerStatuses.state",
      "status.initContainerStatuses.lastState",
      "status.containerStatuses.name",
      "status.containerStatuses.ready",
      "status.containerStatuses.restartCount",
      "status.containerStatuses.state",
      "status.containerStatuses.lastState",
      "status.conditions.type",
      "status.conditions.status",
      "status.conditions.message",
  });
  return kSelection;
}

Json Pod::encode() const {
  Json json = fields::envelope(type(), metadata);
  json["spec"] = spec_json(*this);
  json["status"] = status_json(*this);
  return json;
}

}  // namespace pitcrew::kube
