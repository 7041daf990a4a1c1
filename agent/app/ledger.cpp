#include "agent/app/ledger.hpp"

#include <algorithm>

namespace pitcrew::agent {
namespace {

constexpr size_t kMaxGpus = 64;

Observation mark(std::string kind, Instant now) {
  Observation observation;
  observation.kind = std::move(kind);
  observation.time = now;
  return observation;
}

}  // namespace

Ledger::Ledger(api::HealthPolicy policy, std::string boot_id)
    : policy_(std::move(policy)), boot_id_(std::move(boot_id)) {}

Status Ledger::restore(const api::NodeHealthStatus& before) {
  events_ = before.history;
  for (const api::GpuIdentity& gpu : before.gpus) {
    const bool known = std::any_of(gpus_.begin(), gpus_.end(), [&](const auto& one) { return one.uuid == gpu.uuid; });
    if (!known && gpus_.size() < kMaxGpus) gpus_.push_back(gpu);
  }
  PITCREW_ASSIGN(history_, recall(before.memory));
  return {};
}

void Ledger::learn(const Observation& identity) {
  const api::GpuIdentity gpu{identity.device, identity.word("serial"), identity.word("pci"), identity.word("model")};
  const auto known =
      std::find_if(gpus_.begin(), gpus_.end(), [&](const api::GpuIdentity& one) { return one.uuid == gpu.uuid; });
  if (known != gpus_.end() && *known == gpu) return;
  if (known != gpus_.end()) {
    *known = gpu;
  } else if (gpus_.size() < kMaxGpus) {
    // Another GPU in the same place: the board was exchanged.
    std::erase_if(gpus_, [&](const api::GpuIdentity& one) { return !gpu.pci.empty() && one.pci == gpu.pci; });
    gpus_.push_back(gpu);
  }
  std::sort(gpus_.begin(), gpus_.end(), [](const auto& a, const auto& b) { return a.pci < b.pci; });
  gpus_changed_ = true;
}

void Ledger::name(Observation& observation) {
  if (observation.kind == "gpu.identity") return learn(observation);
  if (observation.device.find(':') == std::string::npos) return;
  for (const api::GpuIdentity& gpu : gpus_) {
    if (gpu.pci == observation.device) observation.device = gpu.uuid;
  }
}

Ledger::Outcome Ledger::judge(const std::vector<Observation>& observations, Instant now) {
  std::vector<Observation> all;
  if (!std::exchange(started_, true)) {
    all.push_back(mark(kinds::kBoot, now));
    all.back().values["boot"] = boot_id_;
    all.push_back(mark(kinds::kAgentStart, now));
  }
  bool events = !all.empty();
  for (const Observation& one : observations) {
    // What a probe says of itself is no evidence that is kept.
    events = events || (!one.reading && one.kind != kinds::kProbe);
    all.push_back(one);
  }
  const bool rates_changed = rates_.take(all, policy_, now);
  Judgement judged = agent::judge(all, policy_, std::move(history_), now);
  history_ = std::move(judged.history);
  wake_ = judged.wake;
  for (const Change& change : judged.changes) {
    const bool raised = change.change == api::HealthChange::kRaised;
    events_.push_back({raised ? change.verdict.since : now, change.verdict.rule, change.verdict.device, change.change,
                       raised ? change.verdict.message : change.why, change.verdict.severity});
  }
  if (events_.size() > api::NodeHealth::kMaxHistory) {
    events_.erase(events_.begin(), events_.end() - static_cast<std::ptrdiff_t>(api::NodeHealth::kMaxHistory));
  }
  verdicts_.clear();
  for (const History::Open& open : history_.open) verdicts_.push_back(open.verdict);
  Outcome outcome{std::move(judged.matches), false};
  outcome.changed = events || !outcome.matches.empty() || !judged.changes.empty() || gpus_changed_ || rates_changed;
  gpus_changed_ = false;
  return outcome;
}

std::optional<Instant> Ledger::waits_for_check() const {
  std::optional<Instant> newest;
  for (const Verdict& verdict : verdicts_) {
    const api::HealthRule* rule = policy_.find(verdict.rule);
    if (rule == nullptr || rule->clears != api::HealthClears::kAfterCheck) continue;
    if (!newest || verdict.last > *newest) newest = verdict.last;
  }
  return newest;
}

Findings Ledger::findings() const {
  Findings findings;
  findings.verdicts = verdicts_;
  findings.history = events_;
  findings.boot_id = boot_id_;
  findings.gpus = gpus_;
  findings.rates = rates_.rates();
  findings.memory = remember(history_);
  return findings;
}

}  // namespace pitcrew::agent
