#include <algorithm>

#include "cli/diagnose/judge.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

std::vector<std::string> names_of(const std::vector<kube::Node>& nodes, bool (*picked)(const kube::Node&)) {
  std::vector<std::string> names;
  for (const kube::Node& node : nodes) {
    if (picked(node)) names.push_back(node.metadata.name);
  }
  return names;
}

// What keeps nodes from taking the gang, in the order in which a person can do something about it.
void why_it_does_not_fit(const Facts& facts, const Condition& admitted, Findings& findings) {
  Finding finding{"NoRoom", 95, "There is no room for the whole gang.", {admitted.message}, "", ""};
  const auto cordoned = names_of(facts.nodes, [](const kube::Node& node) { return node.unschedulable; });
  const auto not_ready = names_of(facts.nodes, [](const kube::Node& node) { return !node.ready(); });
  const auto& avoided = facts.job.status.avoided_nodes;
  if (!cordoned.empty()) finding.evidence.push_back("cordoned: " + some_of(cordoned));
  if (!not_ready.empty()) finding.evidence.push_back("not Ready: " + some_of(not_ready));
  if (!avoided.empty()) finding.evidence.push_back("avoided by this job after failures: " + some_of(avoided));
  if (facts.nodes_known && facts.nodes.empty()) {
    finding.id = "NoNodes";
    finding.title = "The cluster has no nodes.";
    finding.remedy = "add some, or set placement.capacity.mode: Provision so that an autoscaler sees the pods";
    finding.command = "kubectl get nodes";
  } else if (contains(admitted.message, "not selected by the template") && !contains(admitted.message, "too little")) {
    finding.id = "SelectorMatchesNoNode";
    finding.title = "The template's nodeSelector or affinity leaves too few nodes.";
    finding.remedy = "compare spec.template.spec.nodeSelector with the nodes' labels";
    finding.command = "kubectl get nodes --show-labels";
  } else if (contains(admitted.message, "tainted") && !contains(admitted.message, "too little")) {
    finding.id = "TaintsNotTolerated";
    finding.title = "Nodes carry taints that the template doesn't tolerate.";
    finding.remedy = "add the toleration to spec.template.spec.tolerations, or remove the taint";
    finding.command = "kubectl get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints[*].key";
  } else {
    finding.remedy = cordoned.empty() && not_ready.empty()
                         ? "wait, free GPUs of other jobs, ask for fewer replicas, or add nodes"
                         : "bring the nodes above back, or ask for fewer replicas";
    finding.command = pitcrew(facts, "nodes");
  }
  findings.push_back(std::move(finding));
}

void why_pods_are_refused(const Facts& facts, const Condition& admitted, Findings& findings) {
  const std::string& message = admitted.message;
  Finding finding{"PodRefused", 96, "The API server takes no pod of this job.", {message}, "", ""};
  finding.command = kubectl(facts, "get events --field-selector involvedObject.name=" + facts.job.metadata.name);
  if (contains(message, "violates PodSecurity")) {
    finding.id = "PodSecurity";
    finding.title = "The namespace's Pod Security level refuses the job's pods.";
    finding.remedy = "set what the message names in spec.template (Pitcrew's own parts pass 'restricted')";
    finding.command = kubectl(facts, "get namespace -o jsonpath='{.metadata.labels}' ") +
                      "$(kubectl config view --minify -o jsonpath='{..namespace}')";
    const size_t at = facts.kubectl.rfind("-n ");
    if (at != std::string::npos)
      finding.command = "kubectl get namespace " + facts.kubectl.substr(at + 3) + " --show-labels";
  } else if (contains(message, "exceeded quota")) {
    finding.id = "QuotaExceeded";
    finding.title = "A ResourceQuota of the namespace refuses the job's pods.";
    finding.remedy = "free some of it, ask for less, or have the quota raised";
    finding.command = kubectl(facts, "describe resourcequota");
  } else if (contains(message, "serviceaccount") && contains(message, "not found")) {
    finding.id = "ServiceAccountMissing";
    finding.title = "The template's service account does not exist.";
    finding.remedy = "create it, or mend spec.template.spec.serviceAccountName";
    finding.command = kubectl(facts, "get serviceaccounts");
  } else if (contains(message, "PriorityClass")) {
    finding.id = "PriorityClassMissing";
    finding.title = "The priority class does not exist.";
    finding.remedy = "create it, or mend placement.priorityClassName";
    finding.command = "kubectl get priorityclasses";
  } else if (contains(message, "webhook")) {
    finding.id = "WebhookRefuses";
    finding.title = "An admission webhook refuses the job's pods, or does not answer.";
    finding.remedy = "see whose webhook it is, and whether its pods run";
    finding.command = "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations";
  } else {
    finding.remedy = "mend what the message names in spec.template; the operator tries again by itself";
  }
  findings.push_back(std::move(finding));
}

// A quota that is used up, of those that count for every pod.
void quotas_that_are_used_up(const Facts& facts, const Condition* admitted, Findings& findings) {
  const bool exceeded = admitted != nullptr && !admitted->status && admitted->reason == "QuotaExceeded";
  if (!exceeded) return;
  Finding finding{"QuotaExceeded",
                  95,
                  "A ResourceQuota of the namespace leaves too little for the whole gang, so none of it is started.",
                  {admitted->message},
                  "free some of it, ask for fewer replicas, or have the quota raised",
                  kubectl(facts, "describe resourcequota")};
  for (const kube::ResourceQuota& quota : facts.quotas) {
    for (const auto& [name, hard] : quota.hard) {
      const auto used = quota.used.find(name);
      if (used == quota.used.end() || used->second * 10 < hard * 9) continue;
      finding.evidence.push_back("quota " + quota.metadata.name + ": " + name + " " +
                                 std::to_string(used->second / 1000) + " of " + std::to_string(hard / 1000) + " used");
    }
  }
  findings.push_back(std::move(finding));
}

// With capacity: Provision pods are there before their nodes; the scheduler says what they wait for.
void pods_without_a_node(const Facts& facts, Findings& findings) {
  std::vector<std::string> waiting;
  std::string message;
  for (const PodFact& pod : facts.pods) {
    if (pod.deleted || pod.scheduled || !pod.node.empty() || pod.unschedulable.empty()) continue;
    waiting.push_back(pod.name);
    message = pod.unschedulable;
  }
  if (waiting.empty()) return;
  Finding finding{"Unschedulable",
                  93,
                  "The scheduler finds no node for " + count_of(waiting.size(), "pod") + " of the job.",
                  {some_of(waiting) + ": " + message},
                  "",
                  kubectl(facts, "describe pod " + waiting.front())};
  if (contains(message, "volume node affinity conflict")) {
    finding.id = "VolumeInAnotherZone";
    finding.title = "A volume can only be used in another zone than where the pods may run.";
    finding.remedy = "use a shared file system (FSx, EFS), or select nodes of the volume's zone";
  } else if (contains(message, "unbound immediate PersistentVolumeClaims")) {
    finding.id = "ClaimNotBound";
    finding.title = "A PersistentVolumeClaim of the job is not bound to a volume.";
    finding.remedy = "see why: no such storage class, or nothing provisions it";
    finding.command = kubectl(facts, "describe pvc");
  } else if (contains(message, "Insufficient nvidia.com/gpu")) {
    finding.id = "NoFreeGpus";
    finding.title = "No node has enough free GPUs.";
    finding.remedy =
        "wait for the autoscaler, free GPUs of other jobs, or see whether the device plugin runs on the nodes";
    finding.command = pitcrew(facts, "nodes");
  } else if (contains(message, "Insufficient vpc.amazonaws.com/efa")) {
    finding.id = "NoFreeEfa";
    finding.title = "No node has enough free EFA devices.";
    finding.remedy = "ask for as many as the instance type has, and see whether the EFA device plugin runs";
    finding.command = pitcrew(facts, "nodes");
  } else if (contains(message, "untolerated taint")) {
    finding.id = "TaintsNotTolerated";
    finding.title = "Nodes carry taints that the template doesn't tolerate.";
    finding.remedy = "add the toleration to spec.template.spec.tolerations, or remove the taint";
  } else {
    finding.remedy = "the scheduler's words say what is missing; an autoscaler's own log says why it adds no node";
  }
  findings.push_back(std::move(finding));
}

}  // namespace

void judge_admission(const Facts& facts, Findings& findings) {
  if (api::terminal(facts.job.status.phase) || facts.job.spec.lifecycle.suspend) return;
  const Condition* admitted = condition(facts, "Admitted");
  pods_without_a_node(facts, findings);
  if (admitted == nullptr || admitted->status) return;
  if (admitted->reason == "GangDoesNotFit") why_it_does_not_fit(facts, *admitted, findings);
  if (admitted->reason == "PodRefused") why_pods_are_refused(facts, *admitted, findings);
  if (admitted->reason == "GangTimeout" || admitted->reason == "WaitedInPlace") {
    findings.push_back({"GangTimeout",
                        70,
                        "The gang was released whole because some of it did not come up in time; it is tried again.",
                        {admitted->message},
                        "what kept the missing pods is in their events",
                        kubectl(facts, "get events --sort-by=.lastTimestamp | grep " + facts.job.metadata.name)});
  }
  quotas_that_are_used_up(facts, admitted, findings);
}

}  // namespace pitcrew::cli
