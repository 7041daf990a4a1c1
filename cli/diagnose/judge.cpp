#include "cli/diagnose/judge.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

Check check_operator(const Facts& facts) {
  Check check{"operator", CheckState::kUnknown, "not known: its Lease can't be read"};
  if (!facts.operators_known) return check;
  check = {"operator", CheckState::kBad, "no operator has ever led here"};
  for (const OperatorFact& lease : facts.operators) {
    const bool alive = !lease.holder.empty() && lease.renewed && facts.now - *lease.renewed < lease.duration * 2;
    const std::string heard = lease.renewed ? ago(facts.now, *lease.renewed) : "never";
    check.text =
        lease.holder.empty() ? "nobody leads in " + lease.ns : lease.holder + " in " + lease.ns + ", heard " + heard;
    if (!alive) continue;
    check.state = CheckState::kGood;
    break;
  }
  return check;
}

Check check_admission(const Facts& facts) {
  const Condition* admitted = condition(facts, "Admitted");
  if (admitted == nullptr) return {"room", CheckState::kUnknown, "not looked at yet"};
  if (admitted->status) return {"room", CheckState::kGood, "the gang fits: " + admitted->message};
  if (admitted->reason == "PodRefused") return {"room", CheckState::kBad, "the API server refuses the job's pods"};
  return {"room", CheckState::kBad, admitted->reason + ": " + admitted->message};
}

Check check_pods(const Facts& facts) {
  const auto& spec = facts.job.spec;
  size_t running = 0, gone = 0;
  std::map<std::string, size_t> initializing_in;
  for (const PodFact& pod : facts.pods) {
    if (const ContainerFact* init = initializing(pod); init != nullptr && pod.phase == "Pending" && !pod.node.empty())
      ++initializing_in[init->name];
    if (pod.deleted) {
      ++gone;
    } else if (pod.phase == "Running") {
      ++running;
    }
  }
  const uint32_t wanted = spec.replicas + spec.spares;
  std::string text = std::to_string(running) + " of " + std::to_string(wanted) + " running";
  if (gone > 0) text += ", " + std::to_string(gone) + " going";
  for (const auto& [name, count] : initializing_in)
    text += ", " + std::to_string(count) + (count == 1 ? " waits" : " wait") + " for init container " + name;
  if (api::terminal(facts.job.status.phase)) return {"pods", CheckState::kUnknown, text + " (the job is over)"};
  text +=
      ", " + std::to_string(facts.job.status.ready) + " of " + std::to_string(spec.replicas) + " replicas connected";
  if (spec.lifecycle.suspend) return {"pods", CheckState::kUnknown, text + " (suspended)"};
  const bool good = facts.job.status.ready >= spec.replicas;
  return {"pods", good ? CheckState::kGood : CheckState::kBad, text};
}

Check check_nodes(const Facts& facts) {
  if (!facts.nodes_known) return {"nodes", CheckState::kUnknown, "not known: nodes may not be listed"};
  std::set<std::string> ours;
  for (const PodFact& pod : facts.pods) {
    if (!pod.node.empty()) ours.insert(pod.node);
  }
  size_t ready = 0, ready_ours = 0, seen_ours = 0;
  for (const kube::Node& node : facts.nodes) {
    ready += node.ready() ? 1 : 0;
    if (!ours.contains(node.metadata.name)) continue;
    ++seen_ours;
    ready_ours += node.ready() ? 1 : 0;
  }
  std::string text = std::to_string(ready) + " of " + std::to_string(facts.nodes.size()) + " Ready";
  if (!ours.empty())
    text = std::to_string(ready_ours) + " of " + std::to_string(ours.size()) + " of the job's Ready; " + text;
  const bool good = ours.empty() ? ready > 0 : ready_ours == ours.size() && seen_ours == ours.size();
  return {"nodes", good ? CheckState::kGood : CheckState::kBad, text};
}

Check check_health(const Facts& facts) {
  if (facts.health.empty()) return {"health", CheckState::kUnknown, "no node agent has written a NodeHealth"};
  std::vector<std::string> bad;
  for (const api::NodeHealth& health : facts.health) {
    if (!health.status.healthy) bad.push_back(health.spec.node_name);
  }
  if (bad.empty()) return {"health", CheckState::kGood, "all of " + count_of(facts.health.size(), "node") + " healthy"};
  return {"health", CheckState::kWarning, "unhealthy: " + some_of(bad)};
}

Check check_checkpoints(const Facts& facts) {
  const auto& status = facts.job.status.checkpoint;
  if (!facts.job.spec.checkpoint) return {"checkpoints", CheckState::kWarning, "none are configured"};
  if (!status.durable_step && !status.memory_step) return {"checkpoints", CheckState::kUnknown, "none yet"};
  std::string text;
  if (status.durable_step) {
    text = "durable at step " + grouped(status.durable_step->value);
    if (status.durable_time) text += ", " + ago(facts.now, *status.durable_time);
  }
  if (status.memory_step) {
    text += (text.empty() ? "" : "; ") + std::string("in memory at step ") + grouped(status.memory_step->value);
    if (status.memory_time) text += ", " + ago(facts.now, *status.memory_time);
  }
  return {"checkpoints", CheckState::kGood, text};
}

Check check_progress(const Facts& facts) {
  const auto& progress = facts.job.status.progress;
  if (!progress.step) return {"progress", CheckState::kUnknown, "no step done yet"};
  std::string text = "step " + grouped(progress.step->value);
  if (progress.total_steps > 0) text += " of " + grouped(progress.total_steps);
  if (progress.tokens_per_second > 0) text += ", " + rate(progress.tokens_per_second) + " tokens/s";
  if (progress.updated) text += ", as of " + ago(facts.now, *progress.updated);
  const bool running = facts.job.status.phase == api::Phase::kRunning;
  return {"progress", running ? CheckState::kGood : CheckState::kUnknown, text};
}

}  // namespace

std::string kubectl(const Facts& facts, const std::string& rest) { return facts.kubectl + " " + rest; }
std::string pitcrew(const Facts& facts, const std::string& rest) { return facts.pitcrew + " " + rest; }

Duration in_phase(const Facts& facts) {
  const auto& status = facts.job.status;
  Instant since = facts.job.metadata.creation_time.value_or(facts.now);
  for (const Condition& one : status.conditions) {
    if (one.type != "Checkpointed") since = std::max(since, one.last_transition);
  }
  if (!status.recoveries.empty() && status.recoveries.front().first_step)
    since = std::max(since, *status.recoveries.front().first_step);
  return facts.now > since ? facts.now - since : Duration(0);
}

const Condition* condition(const Facts& facts, std::string_view type) {
  return find_condition(facts.job.status.conditions, type);
}

bool contains(std::string_view text, std::string_view part) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
  };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), same) != text.end();
}

Diagnosis judge(const Facts& facts) {
  Diagnosis diagnosis;
  diagnosis.headline = std::string(api::to_string(facts.job.status.phase)) + " for " + spoken(in_phase(facts));
  diagnosis.checks = {check_operator(facts), check_admission(facts), check_pods(facts),       check_nodes(facts),
                      check_health(facts),   check_progress(facts),  check_checkpoints(facts)};
  if (auto use = check_use(facts)) diagnosis.checks.push_back(*std::move(use));
  Findings& findings = diagnosis.findings;
  judge_operator(facts, findings);
  judge_spec(facts, findings);
  judge_admission(facts, findings);
  judge_pods(facts, findings);
  judge_nodes(facts, findings);
  judge_failures(facts, findings);
  judge_pace(facts, findings);
  judge_use(facts, findings);
  std::stable_sort(findings.begin(), findings.end(),
                   [](const Finding& a, const Finding& b) { return a.weight > b.weight; });
  return diagnosis;
}

}  // namespace pitcrew::cli
