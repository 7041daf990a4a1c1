#include <algorithm>
#include <set>

#include "cli/diagnose/judge.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

const kube::NodeCondition* node_condition(const kube::Node& node, std::string_view type) {
  for (const kube::NodeCondition& one : node.conditions) {
    if (one.type == type) return &one;
  }
  return nullptr;
}

void not_ready(const Facts& facts, const kube::Node& node, Findings& findings) {
  const kube::NodeCondition* ready = node_condition(node, "Ready");
  const bool silent = ready == nullptr || ready->status == "Unknown";
  Finding finding{"NodeNotReady",
                  facts.job.status.phase == api::Phase::kRunning ? 30 : 85,
                  "A node that the job's pods are on is not Ready: " + node.metadata.name + ".",
                  {},
                  "",
                  "kubectl describe node " + node.metadata.name};
  if (ready != nullptr)
    finding.evidence.push_back(ready->reason + ": " + ready->message + ", since " +
                               clock_time(facts.now, ready->last_transition));
  finding.remedy = silent
                       ? "its kubelet has gone silent: the machine is off, cut off or stuck. The job goes on elsewhere "
                         "if there is room; have the instance replaced"
                       : "the kubelet says why it isn't ready";
  findings.push_back(std::move(finding));
}

void pressures(const kube::Node& node, Findings& findings) {
  for (const kube::NodeCondition& one : node.conditions) {
    if (one.status != "True" || !one.type.ends_with("Pressure")) continue;
    findings.push_back({one.type,
                        45,
                        "Node " + node.metadata.name + " has " + one.type + ": the kubelet may evict pods.",
                        {one.message},
                        "free what is short on the node",
                        "kubectl describe node " + node.metadata.name});
  }
}

void leaving(const kube::Node& node, Findings& findings) {
  static constexpr const char* kTaints[] = {
      "karpenter.sh/disrupted", "karpenter.sh/disruption", "ToBeDeletedByClusterAutoscaler",
      "node.cloudprovider.kubernetes.io/shutdown", "node.kubernetes.io/out-of-service"};
  for (const kube::Taint& taint : node.taints) {
    const bool known =
        std::any_of(std::begin(kTaints), std::end(kTaints), [&](const char* key) { return taint.key == key; }) ||
        taint.key.starts_with("aws-node-termination-handler/");
    if (!known) continue;
    findings.push_back({"NodeLeaving",
                        40,
                        "Node " + node.metadata.name + " is being taken away; the job saves and moves off it.",
                        {"taint " + taint.key},
                        "nothing: it counts as a planned recovery",
                        "kubectl describe node " + node.metadata.name});
    return;
  }
}

// A fault that is not certain takes a token of the CordonBudget; without one its node stays in use.
void breaker_open(const Facts& facts, const api::NodeHealth& health, const api::HealthVerdict& verdict, int weight,
                  Findings& findings) {
  const std::string& name = health.spec.node_name;
  if (verdict.certain || !facts.budget) return;
  const auto node = std::find_if(facts.nodes.begin(), facts.nodes.end(),
                                 [&](const kube::Node& one) { return one.metadata.name == name; });
  if (node == facts.nodes.end() || node->unschedulable) return;
  const auto refusal = api::cordon_refusal(*facts.budget, name, static_cast<uint32_t>(facts.health.size()), facts.now);
  if (!refusal) return;
  std::vector<std::string> others;
  for (const auto& [other, cordon] : facts.budget->cordons) others.push_back(other + " (" + cordon.fault + ")");
  findings.push_back({"BreakerOpen",
                      weight + 1,
                      "The breaker is open: " + name +
                          " is unhealthy and stays in use, since too many nodes were "
                          "cordoned lately.",
                      {verdict.rule + ": " + verdict.message, *refusal, "cordoned lately: " + some_of(others)},
                      "find what they have in common (a driver, an image, a rule of the HealthPolicy); if " + name +
                          " is really bad, kubectl cordon " + name,
                      "kubectl get cordonbudget " + std::string(api::CordonBudget::kName) + " -o yaml"});
}

void faults(const Facts& facts, const std::set<std::string>& ours, Findings& findings) {
  for (const api::NodeHealth& health : facts.health) {
    if (health.status.healthy && health.status.verdicts.empty()) continue;
    const bool mine = ours.contains(health.spec.node_name);
    for (const api::HealthVerdict& verdict : health.status.verdicts) {
      if (verdict.severity == api::HealthSeverity::kInfo) continue;
      const bool fatal = verdict.severity == api::HealthSeverity::kFault;
      if (!mine && !fatal) continue;
      int weight = mine ? (fatal ? 89 : 42) : 15;
      if (facts.job.status.phase == api::Phase::kRunning) weight = std::min(weight, mine ? 55 : 10);
      if (fatal) breaker_open(facts, health, verdict, weight, findings);
      findings.push_back(
          {"NodeFault",
           weight,
           std::string(mine ? "A node of the job" : "A node") + " is unhealthy: " + health.spec.node_name + ", " +
               verdict.rule + (verdict.device.empty() ? "" : " on " + verdict.device) + ".",
           {verdict.message, count_of(verdict.count, "time") + " since " + clock_time(facts.now, verdict.since) +
                                 "; what it needs: " + std::string(api::to_string(verdict.action))},
           mine ? "the slot moves to a spare or another node by itself; the node needs: " +
                      std::string(api::to_string(verdict.action))
                : "it is kept out of use until it is mended",
           pitcrew(facts, "nodes " + health.spec.node_name)});
      break;  // the rest is in `pitcrew nodes`
    }
  }
}

}  // namespace

void judge_nodes(const Facts& facts, Findings& findings) {
  if (api::terminal(facts.job.status.phase)) return;
  std::set<std::string> ours;
  for (const PodFact& pod : facts.pods) {
    if (!pod.node.empty() && pod.phase != "Succeeded" && pod.phase != "Failed") ours.insert(pod.node);
  }
  for (const kube::Node& node : facts.nodes) {
    if (!ours.contains(node.metadata.name)) continue;
    if (!node.ready()) not_ready(facts, node, findings);
    pressures(node, findings);
    leaving(node, findings);
  }
  faults(facts, ours, findings);
  if (!facts.nodes_known) return;
  for (const std::string& name : ours) {
    const bool there = std::any_of(facts.nodes.begin(), facts.nodes.end(),
                                   [&](const kube::Node& node) { return node.metadata.name == name; });
    if (there) continue;
    findings.push_back({"NodeGone",
                        84,
                        "A node that the job's pods were on does not exist any more: " + name + ".",
                        {},
                        "the slot moves by itself; if the job stays Pending, there is no room for it",
                        "kubectl get nodes"});
  }
}

}  // namespace pitcrew::cli
