#include "cli/diagnose/facts.hpp"

#include <algorithm>
#include <cstdlib>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::cli {
namespace {

namespace fields = kube::fields;

std::optional<Ended> read_ended(const Json* state) {
  const Json* ended = state == nullptr ? nullptr : fields::find(*state, "terminated");
  if (ended == nullptr) return std::nullopt;
  Ended fact;
  fields::read(*ended, "exitCode", fact.exit_code);
  fields::read(*ended, "reason", fact.reason);
  fields::read(*ended, "message", fact.message);
  fields::read(*ended, "finishedAt", fact.finished);
  return fact;
}

ContainerFact read_container(const Json& json, bool init) {
  ContainerFact fact;
  fact.init = init;
  fields::read(json, "name", fact.name);
  fields::read(json, "image", fact.image);
  fields::read(json, "restartCount", fact.restarts);
  const Json* state = fields::find(json, "state");
  if (state != nullptr) {
    const Json* running = fields::find(*state, "running");
    fact.running = running != nullptr;
    if (running != nullptr) fields::read(*running, "startedAt", fact.started);
    if (const Json* waiting = fields::find(*state, "waiting")) {
      fields::read(*waiting, "reason", fact.waiting_reason);
      fields::read(*waiting, "message", fact.waiting_message);
    }
  }
  fact.ended = read_ended(state);
  fact.last_ended = read_ended(fields::find(json, "lastState"));
  fact.through = init && fact.ended && fact.ended->exit_code == 0;
  return fact;
}

// Init containers with restartPolicy Always run on beside the others, which wait only until they have started.
void mark_sidecars(const Json& pod, PodFact& fact) {
  const Json* spec = fields::find(pod, "spec");
  const Json* status = fields::find(pod, "status");
  if (spec == nullptr || status == nullptr) return;
  fields::each(fields::find(*spec, "initContainers"), [&](const Json& container) {
    std::string name, restart_policy;
    fields::read(container, "name", name);
    fields::read(container, "restartPolicy", restart_policy);
    if (restart_policy != "Always") return;
    fields::each(fields::find(*status, "initContainerStatuses"), [&](const Json& json) {
      std::string of;
      bool started = false;
      fields::read(json, "name", of);
      fields::read(json, "started", started);
      for (ContainerFact& one : fact.containers) {
        if (one.init && one.name == name && of == name) one.through = started;
      }
    });
  });
}

void read_spec(const Json& spec, PodFact& fact) {
  fields::read(spec, "nodeName", fact.node);
  fields::each(fields::find(spec, "volumes"), [&](const Json& volume) {
    std::string claim;
    if (const Json* source = fields::find(volume, "persistentVolumeClaim")) fields::read(*source, "claimName", claim);
    if (!claim.empty()) fact.claims.push_back(claim);
  });
  fact.metrics_port = port_called(spec, "pitcrew-metrics");
}

void read_status(const Json& status, PodFact& fact) {
  fields::read(status, "phase", fact.phase);
  fields::read(status, "reason", fact.reason);
  fields::read(status, "message", fact.message);
  fields::each(fields::find(status, "initContainerStatuses"),
               [&](const Json& container) { fact.containers.push_back(read_container(container, true)); });
  fields::each(fields::find(status, "containerStatuses"),
               [&](const Json& container) { fact.containers.push_back(read_container(container, false)); });
  fields::each(fields::find(status, "conditions"), [&](const Json& condition) {
    std::string type, value;
    fields::read(condition, "type", type);
    fields::read(condition, "status", value);
    if (type != "PodScheduled") return;
    fact.scheduled = value == "True";
    if (!fact.scheduled) fields::read(condition, "message", fact.unschedulable);
  });
}

// The value of one label in a sample's label text: `rank` of `rank="3",phase="training"`.
std::string label_of(std::string_view labels, std::string_view name) {
  const std::string key = std::string(name) + "=\"";
  size_t at = labels.find(key);
  while (at != std::string_view::npos && at != 0 && labels[at - 1] != ',' && labels[at - 1] != '{')
    at = labels.find(key, at + 1);
  if (at == std::string_view::npos) return {};
  at += key.size();
  return std::string(labels.substr(at, labels.find('"', at) - at));
}

// Calls f(name, labels, value) for each sample with labels.
template <typename F>
void each_sample(const std::string& page, F f) {
  for (size_t at = 0; at < page.size();) {
    const size_t end = std::min(page.find('\n', at), page.size());
    const std::string_view line = std::string_view(page).substr(at, end - at);
    at = end + 1;
    const size_t open = line.find('{');
    const size_t close = line.rfind('}');
    if (line.starts_with('#') || open == std::string_view::npos || close == std::string_view::npos || close < open)
      continue;
    f(line.substr(0, open), line.substr(open, close - open),
      std::strtod(std::string(line.substr(close + 1)).c_str(), nullptr));
  }
}

}  // namespace

uint16_t port_called(const Json& spec, std::string_view wanted) {
  uint16_t found = 0;
  fields::each(fields::find(spec, "containers"), [&](const Json& container) {
    fields::each(fields::find(container, "ports"), [&](const Json& port) {
      std::string name;
      int number = 0;
      fields::read(port, "name", name);
      fields::read(port, "containerPort", number);
      if (name == wanted && number > 0 && number < 65536) found = static_cast<uint16_t>(number);
    });
  });
  return found;
}

PodFact read_pod(const Json& pod) {
  PodFact fact;
  if (const Json* meta = fields::find(pod, "metadata")) {
    fields::read(*meta, "name", fact.name);
    fields::read(*meta, "uid", fact.uid);
    fields::read(*meta, "creationTimestamp", fact.created);
    fields::read(*meta, "deletionTimestamp", fact.deleted);
  }
  if (const Json* spec = fields::find(pod, "spec")) read_spec(*spec, fact);
  if (const Json* status = fields::find(pod, "status")) read_status(*status, fact);
  mark_sidecars(pod, fact);
  return fact;
}

const ContainerFact* initializing(const PodFact& pod) {
  if (pod.deleted || pod.phase == "Succeeded" || pod.phase == "Failed") return nullptr;
  const auto found = std::find_if(pod.containers.begin(), pod.containers.end(),
                                  [](const ContainerFact& container) { return container.init && !container.through; });
  return found == pod.containers.end() ? nullptr : &*found;
}

std::optional<EventFact> read_event(const Json& event) {
  EventFact fact;
  const Json* regarding = fields::find(event, "regarding");
  if (regarding == nullptr) return std::nullopt;
  std::string kind, name;
  fields::read(*regarding, "kind", kind);
  fields::read(*regarding, "name", name);
  fact.object = kind + "/" + name;
  fields::read(event, "type", fact.type);
  fields::read(event, "reason", fact.reason);
  fields::read(event, "note", fact.note);
  fields::read(event, "deprecatedCount", fact.count);
  // Kubelets still write the old fields, the operator the new ones.
  std::optional<Instant> time;
  if (const Json* series = fields::find(event, "series")) {
    fields::read(*series, "lastObservedTime", time);
    fields::read(*series, "count", fact.count);
  }
  for (const char* key : {"deprecatedLastTimestamp", "eventTime", "deprecatedFirstTimestamp"}) {
    if (!time) fields::read(event, key, time);
  }
  if (const Json* meta = fields::find(event, "metadata"); meta != nullptr && !time)
    fields::read(*meta, "creationTimestamp", time);
  if (!time) return std::nullopt;
  fact.time = *time;
  fact.count = std::max<int64_t>(fact.count, 1);
  return fact;
}

std::vector<RankFact> read_ranks(const std::string& page, const std::string& pod) {
  std::map<uint32_t, RankFact> ranks;
  each_sample(page, [&](std::string_view name, std::string_view labels, double value) {
    if (!name.starts_with("pitcrew_rank_")) return;
    const std::string number = label_of(labels, "rank");
    if (number.empty()) return;
    RankFact& rank = ranks[static_cast<uint32_t>(std::strtoul(number.c_str(), nullptr, 10))];
    if (name == "pitcrew_rank_step") rank.step = static_cast<uint64_t>(value);
    if (name == "pitcrew_rank_phase" && value > 0) rank.phase = label_of(labels, "phase");
    if (name == "pitcrew_rank_in_collective") rank.in_collective = value > 0;
    if (name == "pitcrew_rank_collective") rank.collective = value;
    if (name == "pitcrew_rank_gauge") rank.gauges[label_of(labels, "name")] = value;
  });
  std::vector<RankFact> list;
  for (auto& [number, rank] : ranks) {
    rank.rank = number;
    rank.pod = pod;
    list.push_back(std::move(rank));
  }
  return list;
}

NodeNumbers read_numbers(const std::string& page, const std::string& node, const std::set<std::string>& pods) {
  NodeNumbers numbers;
  numbers.node = node;
  struct Gpu {
    double used = 0, free = 0;
    std::optional<double> tensor;
  };
  std::map<std::string, Gpu> gpus;
  std::set<std::string> efa;
  each_sample(page, [&](std::string_view name, std::string_view labels, double value) {
    if (name.starts_with("DCGM_FI_")) {
      if (!pods.contains(label_of(labels, "pod"))) return;
      Gpu& gpu = gpus[label_of(labels, "gpu")];
      if (name == "DCGM_FI_DEV_FB_USED") gpu.used = value;
      if (name == "DCGM_FI_DEV_FB_FREE") gpu.free = value;
      if (name == "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE") gpu.tensor = value;
    }
    if (name == "pitcrew_efa_tx_bytes_total") {
      efa.insert(label_of(labels, "device"));
      numbers.efa_sent += value;
    }
    if (name == "pitcrew_efa_retransmitted_bytes_total") numbers.efa_again += value;
  });
  numbers.gpus = gpus.size();
  numbers.efa = efa.size();
  double tensor = 0;
  size_t known = 0;
  for (const auto& [name, gpu] : gpus) {
    if (gpu.used + gpu.free > 0) numbers.least_free = std::min(numbers.least_free, gpu.free / (gpu.used + gpu.free));
    tensor += gpu.tensor.value_or(0);
    known += gpu.tensor ? 1 : 0;
  }
  if (known > 0) numbers.tensor = tensor / static_cast<double>(known);
  return numbers;
}

}  // namespace pitcrew::cli
