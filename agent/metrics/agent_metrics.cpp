#include "agent/metrics/agent_metrics.hpp"

#include <map>

#include <prometheus/registry.h>

#include "agent/metrics/description.hpp"
#include "lib/base/version.hpp"

namespace pitcrew::agent {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using Labels = std::vector<ClientMetric::Label>;

constexpr Duration kStale = minutes(5);
constexpr size_t kMaxSeries = 4096;  // of what is counted by a name from outside

// "0000:b9:00.0" as DCGM writes it: "00000000:B9:00.0".
std::string dcgm_bus_id(std::string pci) {
  for (char& c : pci) {
    if (c >= 'a' && c <= 'f') c = static_cast<char>(c - 'a' + 'A');
  }
  return pci.size() == 12 ? "0000" + pci : pci;
}

// Families in the order of the description's rows.
class Page {
 public:
  void put(std::string_view name, double value, Labels labels = {}) { put(metric_row(name), value, std::move(labels)); }
  void put(const MetricRow& row, double value, Labels labels) {
    MetricFamily& family = families_[static_cast<size_t>(&row - metric_rows().data())];
    if (family.metric.empty()) {
      family.name = row.name;
      family.help = row.help;
      family.type = row.type == MetricType::kGauge ? prometheus::MetricType::Gauge : prometheus::MetricType::Counter;
    }
    ClientMetric& metric = family.metric.emplace_back();
    metric.label = std::move(labels);
    (row.type == MetricType::kGauge ? metric.gauge.value : metric.counter.value) = value;
  }
  void take(std::vector<MetricFamily>& out) && {
    for (auto& [row, family] : families_) out.push_back(std::move(family));
  }

 private:
  std::map<size_t, MetricFamily> families_;
};

}  // namespace

// A registry that makes everything when it is collected.
class AgentMetrics::Collected final : public prometheus::Registry {
 public:
  explicit Collected(const Clock& clock) : clock_(clock) {}

  std::vector<MetricFamily> Collect() const override {
    std::vector<MetricFamily> families = prometheus::Registry::Collect();
    Page page;
    readings_on(page);
    counts_on(page);
    thoughts_on(page);
    std::move(page).take(families);
    return families;
  }

  struct Probe {
    bool up = false;
    double seconds = 0;
    uint64_t looks = 0, failures = 0;
  };
  struct Xid {
    uint32_t code = 0;
    Instant time;
  };

  Labels gpu_labels(const std::string& uuid) const {
    Labels labels;
    const auto place = places.find(uuid);
    if (place != places.end()) {
      const std::string index = std::to_string(place->second.index);
      labels = {{"gpu", index},
                {"UUID", uuid},
                {"pci_bus_id", dcgm_bus_id(place->second.pci)},
                {"device", "nvidia" + index},
                {"modelName", place->second.model},
                {"Hostname", node},
                {"DCGM_FI_DRIVER_VERSION", place->second.driver}};
    } else {
      labels = {{"UUID", uuid}, {"Hostname", node}};
    }
    const auto user = users.find(uuid);
    if (user != users.end() && !user->second.pod.empty()) {
      labels.push_back({"pod", user->second.pod});
      labels.push_back({"namespace", user->second.ns});
      labels.push_back({"container", user->second.container});
      labels.push_back({"job", user->second.job});
    }
    return labels;
  }

  Labels labels_of(const Observation& reading) const {
    if (reading.device.empty()) return {};
    const std::string_view label = device_label(reading.kind);
    if (label.empty()) return gpu_labels(reading.device);
    return {{std::string(label), reading.device}};
  }

  std::map<std::string, std::map<std::string, Observation>, std::less<>> readings;  // by kind and device
  std::map<std::string, GpuPlace> places;
  std::map<std::string, GpuUser> users;
  std::map<std::pair<std::string, uint32_t>, uint64_t> xids, sxids;  // by device and code
  std::map<std::string, Xid> last_xids;                              // by device
  std::map<std::string, uint64_t> kernel_events, matches;
  std::map<std::string, Probe> probes;
  std::vector<Verdict> verdicts;
  std::function<ActorNumbers()> actor;
  std::string node;
  std::optional<Duration> cordoned;
  uint64_t lines = 0;
  size_t policy_problems = 0;
  const Clock& clock_;

 private:
  void readings_on(Page& page) const {
    const Instant now = clock_.now();
    for (const MetricRow& row : metric_rows()) {
      const auto devices = readings.find(row.kind);
      if (row.kind.empty() || devices == readings.end()) continue;
      for (const auto& [device, reading] : devices->second) {
        if (now - reading.time > kStale) continue;
        const auto value = row.read != nullptr ? row.read(reading) : reading.number(row.value);
        if (value) page.put(row, *value * row.scale, labels_of(reading));
      }
    }
  }

  void counts_on(Page& page) const {
    for (const auto& [key, count] : xids) {
      Labels labels = gpu_labels(key.first);
      labels.push_back({"xid", std::to_string(key.second)});
      page.put("pitcrew_gpu_xid_total", static_cast<double>(count), std::move(labels));
    }
    for (const auto& [device, place] : places) {
      const auto last = last_xids.find(device);
      const uint32_t code = last == last_xids.end() ? 0 : last->second.code;
      Labels labels = gpu_labels(device);
      labels.push_back({"err_code", std::to_string(code)});
      page.put("DCGM_FI_DEV_XID_ERRORS", code, std::move(labels));
    }
    for (const auto& [key, count] : sxids) {
      page.put("pitcrew_gpu_sxid_total", static_cast<double>(count),
               {{"device", key.first}, {"sxid", std::to_string(key.second)}});
    }
    for (const auto& [kind, count] : kernel_events)
      page.put("pitcrew_node_kernel_events_total", static_cast<double>(count), {{"kind", kind}});
    for (const auto& [rule, count] : matches)
      page.put("pitcrew_rule_matches_total", static_cast<double>(count), {{"rule", rule}});
    for (const auto& [name, probe] : probes) {
      const Labels labels{{"probe", name}};
      page.put("pitcrew_probe_up", probe.up ? 1 : 0, labels);
      page.put("pitcrew_probe_seconds", probe.seconds, labels);
      page.put("pitcrew_probe_looks_total", static_cast<double>(probe.looks), labels);
      page.put("pitcrew_probe_failures_total", static_cast<double>(probe.failures), labels);
    }
    page.put("pitcrew_kernel_log_lines_total", static_cast<double>(lines));
  }

  void thoughts_on(Page& page) const {
    page.put("pitcrew_node_healthy", assess(verdicts).healthy ? 1 : 0);
    for (const Verdict& verdict : verdicts) {
      Labels labels;
      if (places.contains(verdict.device)) labels = gpu_labels(verdict.device);
      // A GPU's own label `device` says nvidia3.
      if (labels.empty()) labels.push_back({"device", verdict.device});
      labels.push_back({"rule", verdict.rule});
      labels.push_back({"severity", std::string(to_string(verdict.severity))});
      labels.push_back({"action", std::string(to_string(verdict.action))});
      page.put("pitcrew_verdict", 1, std::move(labels));
    }
    if (cordoned) page.put("pitcrew_cordon_seconds", to_seconds(*cordoned));
    page.put("pitcrew_policy_problems", static_cast<double>(policy_problems));
    page.put("pitcrew_build_info", 1, {{"version", version()}});
    if (!actor) return;
    const ActorNumbers numbers = actor();
    page.put("pitcrew_node_quarantined", numbers.quarantined ? 1 : 0);
    page.put("pitcrew_node_cordon_refused", numbers.refused ? 1 : 0);
    page.put("pitcrew_node_held", numbers.held ? 1 : 0);
    page.put("pitcrew_cordons_total", static_cast<double>(numbers.cordons));
    page.put("pitcrew_uncordons_total", static_cast<double>(numbers.uncordons));
    page.put("pitcrew_events_dropped_total", static_cast<double>(numbers.events_dropped));
    for (size_t i = 0; i < kErrands; ++i) {
      const Labels labels{{"errand", std::string(to_string(static_cast<Errand>(i)))}};
      page.put("pitcrew_api_writes_total", static_cast<double>(numbers.errands[i].done), labels);
      page.put("pitcrew_api_failures_total", static_cast<double>(numbers.errands[i].failed), labels);
    }
  }
};

AgentMetrics::AgentMetrics(const Clock& clock) : collected_(std::make_shared<Collected>(clock)) {}
AgentMetrics::~AgentMetrics() { collected_->actor = nullptr; }

void AgentMetrics::set_node(const std::string& name) { collected_->node = name; }
void AgentMetrics::set_gpu(const std::string& uuid, const GpuPlace& place) { collected_->places[uuid] = place; }
void AgentMetrics::set_users(const std::map<std::string, GpuUser>& users) { collected_->users = users; }

void AgentMetrics::observed(const Observation& observation) {
  Collected& c = *collected_;
  if (observation.reading) {
    auto& devices = c.readings[observation.kind];
    // What isn't shown any more goes when something new comes, so that volumes that were take nobody's place.
    if (!devices.contains(observation.device))
      std::erase_if(devices, [&](const auto& entry) { return observation.time - entry.second.time > kStale; });
    if (devices.size() < kMaxSeries || devices.contains(observation.device)) devices[observation.device] = observation;
  } else if (observation.kind == kinds::kProbe) {
    Collected::Probe& probe = c.probes[observation.word("probe")];
    probe.up = observation.number("ok") == 1.0;
    probe.seconds = observation.number("seconds").value_or(0);
    ++probe.looks;
    if (!probe.up) ++probe.failures;
  } else if (observation.code && (observation.kind == kinds::kXid || observation.kind == kinds::kSxid)) {
    auto& counts = observation.kind == kinds::kXid ? c.xids : c.sxids;
    const std::pair key(observation.device, *observation.code);
    if (counts.size() < kMaxSeries || counts.contains(key)) ++counts[key];
    if (observation.kind == kinds::kXid && c.places.contains(observation.device))
      c.last_xids[observation.device] = {*observation.code, observation.time};
  } else if (observation.kind.starts_with("kernel.")) {
    ++c.kernel_events[observation.kind];
  }
}

void AgentMetrics::judged(const std::vector<Match>& matches, const std::vector<Verdict>& verdicts) {
  for (const Match& match : matches) ++collected_->matches[match.rule];
  collected_->verdicts = verdicts;
}

void AgentMetrics::cordoned(Duration after) { collected_->cordoned = after; }
void AgentMetrics::kernel_log_lines(uint64_t total) { collected_->lines = total; }
void AgentMetrics::policy_problems(size_t count) { collected_->policy_problems = count; }
void AgentMetrics::set_actor(std::function<ActorNumbers()> numbers) { collected_->actor = std::move(numbers); }

std::shared_ptr<prometheus::Registry> AgentMetrics::registry() const { return collected_; }

}  // namespace pitcrew::agent
