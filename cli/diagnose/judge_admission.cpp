#include <algorithm>

#include "cli/diagnose/rules.hpp"
#include "cli/show/words.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/kube/types/quantity.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kEventsOfJob[] = "{kubectl} get events --field-selector involvedObject.name={job}";
constexpr char kTaintsOfNodes[] =
    "kubectl get nodes -o custom-columns='NAME:.metadata.name,TAINTS:.spec.taints[*].key'";

// Why the API server takes no pod of the job, by its message.
constexpr Rule kRefusals[] = {
    {"violates PodSecurity", "PodSecurity", 96, "The namespace's Pod Security level refuses the job's pods.",
     "set what the message names in spec.template (Pitcrew's own parts pass 'restricted')",
     "kubectl get namespace {ns} --show-labels"},
    {"exceeded quota", "QuotaExceeded", 96, "A ResourceQuota of the namespace refuses the job's pods.",
     "free some of it, ask for less, or have the quota raised", "{kubectl} describe resourcequota"},
    {"failed quota", "QuotaExceeded", 96, "A ResourceQuota of the namespace wants every pod to say what it needs.",
     "add the requests or limits that the message names to spec.template", "{kubectl} describe resourcequota"},
    {"serviceaccount", "ServiceAccountMissing", 96, "The template's service account does not exist.",
     "create it, or mend spec.template.spec.serviceAccountName", "{kubectl} get serviceaccounts"},
    {"PriorityClass", "PriorityClassMissing", 96, "The priority class does not exist.",
     "create it, or mend placement.priorityClassName", "kubectl get priorityclasses"},
    {"webhook", "WebhookRefuses", 96, "An admission webhook refuses the job's pods, or does not answer.",
     "see whose webhook it is, and whether its pods run",
     "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations"},
    {"ValidatingAdmissionPolicy", "PolicyRefuses", 96, "An admission policy of the cluster refuses the job's pods.",
     "set what the message names in spec.template, or ask whoever made the policy",
     "kubectl get validatingadmissionpolicies"},
    {" usage per ", "LimitRange", 96, "A LimitRange of the namespace refuses the job's pods.",
     "ask for what it allows, or have it changed", "{kubectl} describe limitrange"},
    {"must be less than or equal to", "RequestAboveLimit", 96,
     "A container asks for more than its limit; where the template sets none, a LimitRange of the namespace did.",
     "set resources.limits in spec.template beside the requests", "{kubectl} describe limitrange"},
    {"", "PodRefused", 96, "The API server takes no pod of this job.",
     "mend what the message names in spec.template; the operator tries again by itself", kEventsOfJob},
};

// What the scheduler says of pods that wait for a node.
constexpr Rule kUnschedulable[] = {
    {"volume node affinity conflict", "VolumeInAnotherZone", 93,
     "A volume can only be used in another zone than where the pods may run.",
     "use a shared file system (FSx, EFS), or select nodes of the volume's zone", "{kubectl} describe pod {pod}"},
    {"unbound immediate PersistentVolumeClaims", "ClaimNotBound", 93,
     "A PersistentVolumeClaim of the job is not bound to a volume.",
     "see why: no such storage class, or nothing provisions it", "{kubectl} describe pvc"},
    {"Insufficient nvidia.com/gpu", "NoFreeGpus", 93, "No node has enough free GPUs.",
     "wait for the autoscaler, free GPUs of other jobs, or see whether the device plugin runs on the nodes",
     "{pitcrew} nodes"},
    {"Insufficient vpc.amazonaws.com/efa", "NoFreeEfa", 93, "No node has enough free EFA devices.",
     "ask for as many as the instance type has, and see whether the EFA device plugin runs", "{pitcrew} nodes"},
    {"untolerated taint", "TaintsNotTolerated", 93, "Nodes carry taints that the template doesn't tolerate.",
     "add the toleration to spec.template.spec.tolerations, or remove the taint", "{kubectl} describe pod {pod}"},
    {"", "Unschedulable", 93, "The scheduler finds no node for {count} of the job.",
     "the scheduler's words say what is missing; an autoscaler's own log says why it adds no node",
     "{kubectl} describe pod {pod}"},
};

// Why the gang doesn't fit, by what its nodes have in common.
constexpr Rule kNoNodes = {"",
                           "NoNodes",
                           95,
                           "The cluster has no nodes.",
                           "add some, or set placement.capacity.mode: Provision so that an autoscaler sees the pods",
                           "kubectl get nodes"};
constexpr Rule kSelector = {"",
                            "SelectorMatchesNoNode",
                            95,
                            "The template's nodeSelector or affinity leaves too few nodes.",
                            "compare spec.template.spec.nodeSelector with the nodes' labels",
                            "kubectl get nodes --show-labels"};
constexpr Rule kTaints = {"",
                          "TaintsNotTolerated",
                          95,
                          "Nodes carry taints that the template doesn't tolerate.",
                          "add the toleration to spec.template.spec.tolerations, or remove the taint",
                          kTaintsOfNodes};
constexpr Rule kTooLarge = {"",
                            "PodTooLarge",
                            95,
                            "A pod of the job is larger than any node: waiting does not help.",
                            "ask for less, or add larger nodes",
                            "{pitcrew} nodes"};
constexpr Rule kNotOffered = {
    "",
    "ResourceNotOffered",
    95,
    "No node offers {resource} at all.",
    "add nodes that have it, or see whether its device plugin runs on them",
    "kubectl get nodes -o custom-columns='NAME:.metadata.name,ALLOCATABLE:.status.allocatable'"};
constexpr Rule kBringBack = {"",
                             "NodesOutOfUse",
                             95,
                             "There is no room for the whole gang while nodes are out of use.",
                             "bring the nodes above back (kubectl uncordon NODE), or ask for fewer replicas",
                             "{pitcrew} nodes"};
constexpr Rule kNoRoom = {"",
                          "NoRoom",
                          95,
                          "There is no room for the whole gang.",
                          "wait, free room that others hold, ask for fewer replicas, or add nodes",
                          "{pitcrew} nodes"};
constexpr Rule kGangTimeout = {
    "",
    "GangTimeout",
    70,
    "The gang was released whole because some of it did not come up in time; it is tried again.",
    "mend what kept each missing pod, as the line above says; where pods take long by nature, raise "
    "placement.gangTimeout",
    "{kubectl} get events --sort-by=.lastTimestamp | grep {job}"};
constexpr Rule kQuota = {
    "",
    "QuotaExceeded",
    95,
    "A ResourceQuota of the namespace leaves too little for the whole gang, so none of it is started.",
    "free some of it, ask for fewer replicas, or have the quota raised",
    "{kubectl} describe resourcequota"};

std::vector<std::string> names_of(const std::vector<kube::Node>& nodes, bool (*picked)(const kube::Node&)) {
  std::vector<std::string> names;
  for (const kube::Node& node : nodes) {
    if (picked(node)) names.push_back(node.metadata.name);
  }
  return names;
}

// "64Gi" and not its bytes.
std::string amount(const std::string& resource, int64_t thousandths) {
  if (resource == "memory" || resource == "ephemeral-storage") return bytes(static_cast<uint64_t>(thousandths / 1000));
  return kube::format_quantity(thousandths);
}

// A pod of the job as the template has it: what it asks for and where it may run.
kube::Pod template_pod(const Facts& facts) {
  Json json = {{"metadata", {{"name", facts.job.metadata.name}}}};
  const auto spec = facts.job.spec.pod_template.find("spec");
  if (spec != facts.job.spec.pod_template.end()) json["spec"] = *spec;
  const auto pod = kube::Pod::decode(json);
  return pod ? *pod : kube::Pod();
}

// Where no node is large enough even when it is empty.
const Rule* too_large(const Facts& facts, const kube::Pod& pod, Finding& finding, Words& words) {
  const Rule* rule = nullptr;
  for (const auto& [resource, wanted] : pod.requests) {
    int64_t most = 0;
    for (const kube::Node& node : facts.nodes) {
      const auto there = node.allocatable.find(resource);
      if (there != node.allocatable.end()) most = std::max(most, there->second);
    }
    if (wanted <= most) continue;
    finding.evidence.push_back("a pod asks for " + amount(resource, wanted) + " " + resource +
                               ", the largest node has " + amount(resource, most));
    if (rule == &kNotOffered) continue;
    rule = most == 0 ? &kNotOffered : &kTooLarge;
    words["resource"] = resource;
  }
  return rule;
}

void selector_evidence(const Facts& facts, const kube::Pod& pod, Finding& finding) {
  for (const auto& [key, value] : pod.node_selector) {
    const auto having = std::count_if(facts.nodes.begin(), facts.nodes.end(), [&](const kube::Node& node) {
      const auto label = node.metadata.labels.find(key);
      return label != node.metadata.labels.end() && label->second == value;
    });
    finding.evidence.push_back(
        "nodeSelector " + key + "=" + value + ": " +
        (having == 0 ? "no node has it"
                     : count_of(static_cast<uint64_t>(having), "node") + " of " + std::to_string(facts.nodes.size())));
  }
}

// Jobs whose pods hold what this one waits for.
void holders(const Facts& facts, Finding& finding) {
  std::vector<std::string> others;
  for (const OtherJob& other : facts.other_jobs) {
    if (other.pods == 0) continue;
    const std::string name = (other.ns == facts.job.metadata.ns ? "" : other.ns + "/") + other.name;
    others.push_back(name + " (" + count_of(other.pods, "pod") + ", " + other.phase + ")");
  }
  if (!others.empty()) finding.evidence.push_back("other TrainingJobs hold room: " + some_of(others));
}

// What keeps nodes from taking the gang, in the order in which a person can do something about it.
void why_it_does_not_fit(const Facts& facts, const Condition& admitted, Findings& findings) {
  Finding found{"", 0, "", {admitted.message}, "", ""};
  const kube::Pod pod = template_pod(facts);
  const auto cordoned = names_of(facts.nodes, [](const kube::Node& node) { return node.unschedulable; });
  const auto not_ready = names_of(facts.nodes, [](const kube::Node& node) { return !node.ready(); });
  const auto& avoided = facts.job.status.avoided_nodes;
  const bool little = contains(admitted.message, "too little");
  Words words;
  const Rule* rule = &kNoRoom;
  if (facts.nodes_known && facts.nodes.empty()) {
    rule = &kNoNodes;
  } else if (contains(admitted.message, "not selected by the template") && !little) {
    rule = &kSelector;
    selector_evidence(facts, pod, found);
  } else if (contains(admitted.message, "tainted") && !little) {
    rule = &kTaints;
  } else if (const Rule* larger = facts.nodes_known ? too_large(facts, pod, found, words) : nullptr) {
    rule = larger;
  } else if (!cordoned.empty() || !not_ready.empty()) {
    rule = &kBringBack;
  }
  if (!cordoned.empty()) found.evidence.push_back("cordoned: " + some_of(cordoned));
  if (!not_ready.empty()) found.evidence.push_back("not Ready: " + some_of(not_ready));
  if (!avoided.empty()) found.evidence.push_back("avoided by this job after failures: " + some_of(avoided));
  if (rule == &kNoRoom || rule == &kBringBack) holders(facts, found);
  findings.push_back(finding_of(facts, *rule, std::move(found.evidence), words));
}

// A quota that is used up, of those that count for every pod.
void quotas_that_are_used_up(const Facts& facts, const Condition& admitted, Findings& findings) {
  std::vector<std::string> evidence = {admitted.message};
  for (const kube::ResourceQuota& quota : facts.quotas) {
    for (const auto& [name, hard] : quota.hard) {
      const auto used = quota.used.find(name);
      if (used == quota.used.end() || used->second * 10 < hard * 9) continue;
      evidence.push_back("quota " + quota.metadata.name + ": " + name + " " + amount(name, used->second) + " of " +
                         amount(name, hard) + " used");
    }
  }
  findings.push_back(finding_of(facts, kQuota, std::move(evidence)));
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
  const Rule* rule = matching(kUnschedulable, message);
  const bool told = std::any_of(facts.claims.begin(), facts.claims.end(), [](const ClaimFact& claim) {
    return !claim.exists || claim.phase == "Pending" || claim.phase == "Lost";
  });
  if (told && std::string_view(rule->id) == "ClaimNotBound") return;  // judge_pods names the claim
  findings.push_back(finding_of(facts, *rule, {some_of(waiting) + ": " + message},
                                {{"pod", waiting.front()}, {"count", count_of(waiting.size(), "pod")}}));
}

// Without "create pods team-a/: ", which says nothing to whoever asks about one job.
std::string server_message(const std::string& message) {
  const size_t at = message.starts_with("create pods ") ? message.find(": ") : std::string::npos;
  return at == std::string::npos ? message : message.substr(at + 2);
}

}  // namespace

void judge_admission(const Facts& facts, Findings& findings) {
  if (api::terminal(facts.job.status.phase) || facts.job.spec.lifecycle.suspend) return;
  pods_without_a_node(facts, findings);
  const Condition* admitted = condition(facts, "Admitted");
  if (admitted == nullptr || admitted->status) return;
  const std::string& reason = admitted->reason;
  if (reason == "GangDoesNotFit") why_it_does_not_fit(facts, *admitted, findings);
  if (reason == "QuotaExceeded") quotas_that_are_used_up(facts, *admitted, findings);
  if (reason == "PodRefused") {
    findings.push_back(finding_of(facts, *matching(kRefusals, admitted->message), {server_message(admitted->message)}));
  }
  if (reason == "GangTimeout" || reason == "WaitedInPlace")
    findings.push_back(finding_of(facts, kGangTimeout, {admitted->message}));
}

}  // namespace pitcrew::cli
