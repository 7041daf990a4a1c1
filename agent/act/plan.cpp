#include "agent/act/plan.hpp"

#include <algorithm>

#include "lib/api/health_names.hpp"
#include "lib/base/digest.hpp"

namespace pitcrew::agent {
namespace {

using api::NodeHealth;
using api::NodeHealthStatus;

constexpr char kController[] = "pitcrew.dev/agent";
constexpr char kByToken[] = " (token)";
constexpr size_t kMaxNote = 1024;         // bytes (the API's limit)
constexpr Duration kEventAge = hours(1);  // the cluster keeps events no longer: older ones are news to nobody
constexpr size_t kMaxEventsAtOnce = 20;   // of a plan; of more the newest

std::string bounded(std::string text, size_t limit) {
  if (text.size() > limit) text.resize(limit);
  return text;
}

// The fault by which a node is cordoned: the certain ones first, then by what they need.
const Verdict* strongest(const std::vector<Verdict>& verdicts) {
  const Verdict* best = nullptr;
  for (const Verdict& verdict : verdicts) {
    if (verdict.severity != api::HealthSeverity::kFault) continue;
    if (best == nullptr || std::pair(verdict.certain, verdict.action) > std::pair(best->certain, best->action)) {
      best = &verdict;
    }
  }
  return best;
}

bool tainted(const kube::Node& node) {
  return std::any_of(node.taints.begin(), node.taints.end(),
                     [](const kube::Taint& taint) { return taint.key == api::health::kUnhealthy; });
}

const std::string* find(const std::map<std::string, std::string>& map, const char* key) {
  const auto found = map.find(key);
  return found == map.end() ? nullptr : &found->second;
}

// As it comes back from the API server, which is told of times to the millisecond.
Instant rounded(Instant time) { return Instant(std::chrono::floor<milliseconds>(time.since_epoch())); }

void round_times(NodeHealthStatus& status) {
  for (Verdict& verdict : status.verdicts) {
    verdict.since = rounded(verdict.since);
    verdict.last = rounded(verdict.last);
  }
  for (api::HealthEvent& event : status.history) event.time = rounded(event.time);
  for (api::DeviceRate& rate : status.rates) rate.time = rounded(rate.time);
}

// One call of plan().
class Planner {
 public:
  Planner(const Findings& findings, const Standing& standing, const ActSettings& settings, Instant now)
      : findings_(findings),
        standing_(standing),
        node_(standing.node),
        settings_(settings),
        now_(now),
        fault_(strongest(findings.verdicts)),
        assessment_(assess(findings.verdicts)) {}

  Plan make() {
    if (fault_ != nullptr) {
      quarantine();
    } else if (findings_.settled) {
      take_back();
    }
    tell_cordon();
    count_certain_cordon();
    write_condition();
    write_health();
    return std::move(plan_);
  }

 private:
  void wake(Instant at) {
    if (!plan_.wake || at < *plan_.wake) plan_.wake = at;
  }

  std::optional<CordonNote> note() const {
    const std::string* text = find(node_.metadata.annotations, api::health::kCordoned);
    return text == nullptr ? std::nullopt : parse_cordon_note(*text);
  }

  void quarantine() {
    NodeChange change;
    const std::string label = bounded(fault_->rule, 63);
    const std::string* old = find(node_.metadata.labels, api::health::kUnhealthy);
    if (old == nullptr || *old != label) change.label = label;
    if (!tainted(node_) && !settings_.shadow) {
      // Cordoned by us before: only the taint is put back. Who made the node schedulable again meant it.
      if (note()) {
        change.taint = true;
      } else if (fault_->certain || has_token()) {
        change.taint = true;
        if (!node_.unschedulable) {
          change.cordon = true;
          change.annotation = to_string(CordonNote{now_, fault_->rule, fault_->certain});
        }
      }
    }
    if (change != NodeChange{}) plan_.node = change;
  }

  // Whether a token is ours; else what to do about it.
  bool has_token() {
    const auto retry = [&](std::string why) {
      tell("refused/" + fault_->rule + "/" + to_rfc3339(fault_->since, 3), "Warning", "CordonRefused", "Cordon",
           fault_->rule + ": " + why, now_);
      plan_.refused = std::move(why);
      if (now_ >= *standing_.budget_read + settings_.budget_retry) {
        plan_.read_budget = true;
      } else {
        wake(*standing_.budget_read + settings_.budget_retry);
      }
      return false;
    };
    if (!standing_.budget_read) {
      plan_.read_budget = true;
      return false;
    }
    if (!standing_.budget) {
      return retry("CordonBudget " + std::string(api::CordonBudget::kName) +
                   " is absent; a fault that is not certain cordons no node without it");
    }
    const api::CordonBudget& budget = *standing_.budget;
    const auto own = budget.cordons.find(node_.metadata.name);
    if (own != budget.cordons.end() && own->second.node_uid == node_.metadata.uid &&
        now_ - own->second.time < budget.spec.window && own->second.time <= now_) {
      return true;
    }
    if (const auto refusal = api::cordon_refusal(budget, node_.metadata.name, standing_.agents, now_)) {
      return retry(*refusal);
    }
    if (now_ - *standing_.budget_read > settings_.budget_fresh) {
      plan_.read_budget = true;
      return false;
    }
    plan_.take_token = entry(now_, fault_->rule, false);
    return false;
  }

  api::Cordon entry(Instant time, const std::string& rule, bool certain) const {
    return {node_.provider_id, node_.metadata.uid, time, rule, certain};
  }

  void tell_cordon() {
    const auto cordoned = note();
    if (!cordoned || now_ - cordoned->time > kEventAge) return;
    tell("cordoned/" + to_rfc3339(cordoned->time, 3), "Warning", "Cordoned", "Cordon",
         "cordoned because of " + cordoned->rule, cordoned->time);
  }

  void tell(const std::string& key, const std::string& type, const std::string& reason, const std::string& action,
            const std::string& text, Instant time) {
    kube::Event event = event_about(node_, key, type, reason, action, text, time);
    if (!standing_.told.contains(event.metadata.name)) plan_.events.push_back(std::move(event));
  }

  void count_certain_cordon() {
    const auto cordoned = note();
    if (!cordoned || !cordoned->certain || standing_.cordon_counted == cordoned->time) return;
    const Duration window = standing_.budget ? standing_.budget->spec.window : api::CordonBudgetSpec{}.window;
    if (now_ - cordoned->time < window) plan_.count_cordon = entry(cordoned->time, cordoned->rule, true);
  }

  void take_back() {
    if (held(node_)) return;
    const NodeChange change = taking_back(node_);
    if (change != NodeChange{}) plan_.node = change;
  }

  void write_condition() {
    if (fault_ == nullptr && !findings_.settled) return;
    kube::NodeCondition wanted;
    wanted.type = api::health::kCondition;
    wanted.status = assessment_.healthy ? "True" : "False";
    wanted.reason = assessment_.healthy ? "NoFault" : assessment_.reason;
    wanted.message = assessment_.healthy ? "no fault has been found" : assessment_.message;
    wanted.last_transition = now_;
    const kube::NodeCondition* old = health_condition(node_);
    if (old != nullptr && old->status == wanted.status) {
      wanted.last_transition = old->last_transition;
      const bool same = old->reason == wanted.reason && old->message == wanted.message;
      const Instant due = standing_.condition_written + (same ? settings_.heartbeat : settings_.text_every);
      if (now_ < due) return wake(due);
    }
    plan_.condition = wanted;
  }

  void write_health() {
    NodeHealth wanted;
    wanted.spec = {node_.provider_id, node_.metadata.uid, node_.metadata.name};
    wanted.metadata.name = api::node_health_name(wanted.spec);
    if (standing_.health_read != wanted.metadata.name) {
      plan_.read_health = true;
      return;
    }
    if (fault_ == nullptr && !findings_.settled) return;
    NodeHealthStatus& status = wanted.status;
    status.healthy = assessment_.healthy;
    status.needs = assessment_.needs;
    status.message = assessment_.message;
    status.boot_id = findings_.boot_id;
    status.gpus = findings_.gpus;
    status.verdicts = findings_.verdicts;
    std::stable_sort(status.verdicts.begin(), status.verdicts.end(),
                     [](const Verdict& a, const Verdict& b) { return a.severity > b.severity; });
    if (status.verdicts.size() > NodeHealth::kMaxVerdicts) status.verdicts.resize(NodeHealth::kMaxVerdicts);
    const auto& history = findings_.history;
    status.history.assign(
        history.end() - static_cast<std::ptrdiff_t>(std::min(history.size(), NodeHealth::kMaxHistory)), history.end());
    status.rates = findings_.rates;
    status.memory = findings_.memory;
    round_times(status);
    if (!standing_.health) {
      tell_news(status.history, {});
      plan_.health = wanted;
      return;
    }
    const NodeHealthStatus& old = standing_.health->status;
    wanted.metadata.uid = standing_.health->metadata.uid;
    status.checks = old.checks;  // the operator's
    if (standing_.health->spec == wanted.spec && old == status) return;
    tell_news(status.history, old.history);
    const Instant due = standing_.health_written + patience(status, old, standing_.health->spec == wanted.spec);
    if (now_ < due) return wake(due);
    plan_.health = wanted;
  }

  // How long what differs can wait.
  Duration patience(const NodeHealthStatus& wanted, const NodeHealthStatus& old, bool same_spec) const {
    if (!same_spec) return Duration(0);
    const auto with = [&](NodeHealthStatus status) {
      status.memory = wanted.memory;
      for (Verdict& verdict : status.verdicts) verdict.last = Instant(), verdict.count = 0;
      return status;
    };
    NodeHealthStatus a = with(wanted), b = with(old);
    if (a == b) return settings_.counts_every;
    b.rates = a.rates;
    return a == b ? settings_.rates_every : Duration(0);
  }

  // Events of what has come into the history since it was written last.
  void tell_news(const std::vector<api::HealthEvent>& history, const std::vector<api::HealthEvent>& known) {
    for (const api::HealthEvent& event : history) {
      if (now_ - event.time > kEventAge || std::find(known.begin(), known.end(), event) != known.end()) continue;
      const bool raised = event.change == api::HealthChange::kRaised;
      const std::string key = event.rule + "/" + event.device + "/" + std::string(to_string(event.change)) + "/" +
                              to_rfc3339(event.time, 3);
      const std::string where = event.device.empty() ? "" : " on " + event.device;
      tell(key, raised ? "Warning" : "Normal", raised ? "HealthFinding" : "HealthCleared", raised ? "Judge" : "Clear",
           event.rule + where + ": " + event.message, event.time);
    }
    if (plan_.events.size() > kMaxEventsAtOnce) {
      plan_.events.erase(plan_.events.begin(), plan_.events.end() - kMaxEventsAtOnce);
    }
  }

  const Findings& findings_;
  const Standing& standing_;
  const kube::Node& node_;
  const ActSettings& settings_;
  const Instant now_;
  const Verdict* fault_;
  const Assessment assessment_;
  Plan plan_;
};

}  // namespace

Status ActSettings::validate() const {
  if (heartbeat < minutes(5)) {
    return Error(Code::kInvalidArgument, "heartbeat: must be 5m or more, so that a healthy node is written seldom");
  }
  return {};
}

bool Plan::idle() const {
  return !node && !read_budget && !take_token && !count_cordon && !condition && events.empty() && !read_health &&
         !health;
}

Plan plan(const Findings& findings, const Standing& standing, const ActSettings& settings, Instant now) {
  return Planner(findings, standing, settings, now).make();
}

std::string to_string(const CordonNote& note) {
  return to_rfc3339(note.time, 3) + " " + note.rule + (note.certain ? "" : kByToken);
}

std::optional<CordonNote> parse_cordon_note(const std::string& text) {
  const size_t space = text.find(' ');
  const auto time = parse_rfc3339(std::string_view(text).substr(0, space));
  if (!time) return std::nullopt;
  CordonNote note{*time, space == std::string::npos ? "" : text.substr(space + 1)};
  note.certain = !note.rule.ends_with(kByToken);
  if (!note.certain) note.rule.resize(note.rule.size() - (sizeof kByToken - 1));
  return note;
}

NodeChange taking_back(const kube::Node& node) {
  NodeChange change;
  if (find(node.metadata.labels, api::health::kUnhealthy) != nullptr) change.label = "";
  if (tainted(node)) change.taint = false;
  if (find(node.metadata.annotations, api::health::kCordoned) != nullptr) {
    change.annotation = "";
    change.uncordon = node.unschedulable;
  }
  return change;
}

bool held(const kube::Node& node) {
  const std::string* hold = find(node.metadata.annotations, api::health::kHold);
  return hold != nullptr && *hold != "false";
}

const kube::NodeCondition* health_condition(const kube::Node& node) {
  for (const kube::NodeCondition& condition : node.conditions) {
    if (condition.type == api::health::kCondition) return &condition;
  }
  return nullptr;
}

kube::Event event_about(const kube::Node& node, const std::string& key, const std::string& type,
                        const std::string& reason, const std::string& action, const std::string& note, Instant time) {
  kube::Event event;
  event.metadata.ns = "default";  // where the cluster keeps events about what has no namespace
  event.metadata.name = bounded(node.metadata.name, 230) + "." + hex64(xxh3(node.metadata.uid + "/" + key));
  event.regarding = {"v1", "Node", "", node.metadata.name, node.metadata.uid};
  event.event_type = type;
  event.reason = reason;
  event.action = action;
  event.note = bounded(note, kMaxNote);
  event.reporting_controller = kController;
  event.reporting_instance = node.metadata.name;
  event.time = time;
  return event;
}

}  // namespace pitcrew::agent
