#include <algorithm>
#include <functional>
#include <map>

#include "cli/diagnose/judge.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kInitContainer[] = "pitcrew-launcher";
constexpr Duration kPullPatience = minutes(3);
constexpr Duration kConnectPatience = seconds(45);
constexpr Duration kGoingPatience = minutes(2);

// The same thing of several pods is one finding.
class Grouped {
 public:
  Grouped(const Facts& facts, Findings& findings) : facts_(facts), findings_(findings) {}

  Finding& add(const std::string& id, int weight, const std::string& pod) {
    auto [found, fresh] = index_.try_emplace(id, findings_.size());
    if (fresh) findings_.push_back({id, weight, "", {}, "", kubectl(facts_, "describe pod " + pod)});
    pods_[id].push_back(pod);
    return findings_[found->second];
  }
  // Which pods each is about, as its first evidence.
  void finish() {
    for (const auto& [id, at] : index_) {
      Finding& finding = findings_[at];
      finding.evidence.insert(finding.evidence.begin(), "pods: " + some_of(pods_[id]));
    }
  }

 private:
  const Facts& facts_;
  Findings& findings_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::vector<std::string>> pods_;
};

void image(const Facts& facts, const PodFact& pod, const ContainerFact& container, Grouped& grouped) {
  std::string message = container.waiting_message;
  // ImagePullBackOff only says that it waits: the reason stands in the event before.
  if (container.waiting_reason == "ImagePullBackOff") {
    for (const EventFact& event : facts.events) {
      if (event.object == "Pod/" + pod.name && event.reason == "Failed" && contains(event.note, "pull"))
        message = event.note;
    }
  }
  const bool ours = container.name == kInitContainer;
  const std::string whose = ours ? "Pitcrew's launcher image" : "The image " + container.image;
  std::string id = "ImagePull", why = "can't be pulled", remedy = "the registry's answer says why";
  if (container.waiting_reason == "InvalidImageName") {
    id = "ImageNameInvalid", why = "is no valid image name", remedy = "mend image: in spec.template";
  } else if (contains(message, "not found") || contains(message, "manifest unknown") ||
             contains(message, "MANIFEST_UNKNOWN")) {
    id = "ImageNotFound", why = "does not exist in its registry", remedy = "mend the name or tag, or push it";
  } else if (contains(message, "unauthorized") || contains(message, "authentication required") ||
             contains(message, "denied") || contains(message, "403 Forbidden")) {
    id = "ImageNotAllowed", why = "may not be pulled: the registry refuses the credentials";
    remedy = "add imagePullSecrets to spec.template.spec, or let the nodes' role read the repository";
  } else if (contains(message, "no such host") || contains(message, "i/o timeout") ||
             contains(message, "connection refused") || contains(message, "TLS handshake")) {
    id = "RegistryUnreachable", why = "can't be pulled: the registry can't be reached from the node";
    remedy = "look at the node's network, DNS and proxy, and whether a VPC endpoint for the registry is missing";
  } else if (contains(message, "no space left")) {
    id = "NodeDiskFull", why = "can't be pulled: the node's disk is full",
    remedy = "free the node's disk, or give nodes a larger one";
  }
  if (ours) {
    id = "Launcher" + id;
    remedy += "; it is the operator's launcherImage (chart value image.registry)";
  }
  Finding& finding = grouped.add(id, 94, pod.name);
  finding.title = whose + " " + why + ".";
  if (finding.evidence.empty()) finding.evidence.push_back(message.empty() ? container.waiting_reason : message);
  finding.remedy = remedy;
}

void waiting(const Facts& facts, const PodFact& pod, const ContainerFact& container, Grouped& grouped) {
  const std::string& reason = container.waiting_reason;
  if (reason == "ErrImagePull" || reason == "ImagePullBackOff" || reason == "InvalidImageName" ||
      reason == "RegistryUnavailable")
    return image(facts, pod, container, grouped);
  if (reason == "CreateContainerConfigError") {
    Finding& finding = grouped.add("ConfigMissing", 93, pod.name);
    finding.title = "A Secret or ConfigMap that the container needs does not exist.";
    if (finding.evidence.empty()) finding.evidence.push_back(container.waiting_message);
    finding.remedy = "create it, or mend env and envFrom in spec.template";
  } else if (reason == "CreateContainerError" || reason == "RunContainerError") {
    Finding& finding = grouped.add("ContainerCannotStart", 92, pod.name);
    finding.title = "The container runtime can't start the container.";
    if (finding.evidence.empty()) finding.evidence.push_back(container.waiting_message);
    finding.remedy = contains(container.waiting_message, "executable file not found")
                         ? "command in spec.template names a program that the image doesn't have"
                         : "the runtime's words say what it refuses: a mount, a device, a security setting";
  }
}

void ended(const Facts& facts, const PodFact& pod, const ContainerFact& container, Grouped& grouped) {
  const auto& last = container.ended ? container.ended : container.last_ended;
  if (!last || last->exit_code == 0) return;
  if (container.ended == std::nullopt && container.running && facts.job.status.phase == api::Phase::kRunning) return;
  if (container.init && container.name == kInitContainer) {
    Finding& finding = grouped.add("LauncherNotInjected", 93, pod.name);
    finding.title = "The init container that brings Pitcrew's launcher fails.";
    if (finding.evidence.empty())
      finding.evidence.push_back("exit code " + std::to_string(last->exit_code) + " " + last->reason + " " +
                                 last->message);
    finding.remedy = contains(last->message, "exec format")
                         ? "the launcher's image is of another architecture than the node"
                         : "see its log";
    finding.command = kubectl(facts, "logs " + pod.name + " -c " + kInitContainer);
    return;
  }
  if (container.name != facts.job.spec.container) return;
  if (last->reason == "OOMKilled") {
    Finding& finding = grouped.add("OutOfMemory", 91, pod.name);
    finding.title = "The training container ran out of its memory limit (host memory, not the GPU's).";
    if (finding.evidence.empty()) {
      finding.evidence.push_back("OOMKilled" +
                                 (last->finished ? ", " + ago(facts.now, *last->finished) : std::string()) + ", " +
                                 count_of(static_cast<uint64_t>(container.restarts), "restart"));
    }
    finding.remedy =
        "raise resources.limits.memory in spec.template, or use fewer data workers; PITCREW_MEMORY's size is part of "
        "it";
  } else if (last->exit_code == 78) {
    Finding& finding = grouped.add("LauncherContract", 90, pod.name);
    finding.title = "The launcher found that the pod lacks what the operator should have put there.";
    if (finding.evidence.empty()) finding.evidence.push_back(last->message.empty() ? "exit code 78" : last->message);
    finding.remedy = "a webhook may have changed the pod; the launcher's first lines name what is missing";
    finding.command = kubectl(facts, "logs " + pod.name + " --previous");
  } else if (container.waiting_reason == "CrashLoopBackOff") {
    Finding& finding = grouped.add("LauncherCrashLoops", 80, pod.name);
    finding.title = "The training container ends again and again.";
    if (finding.evidence.empty())
      finding.evidence.push_back("exit code " + std::to_string(last->exit_code) + " " + last->reason + ", " +
                                 count_of(static_cast<uint64_t>(container.restarts), "restart"));
    finding.remedy = "see what it said before it ended";
    finding.command = kubectl(facts, "logs " + pod.name + " --previous --tail 50");
  }
}

struct EventRule {
  const char* reason;
  const char* text;  // "" matches any
  const char* id;
  int weight;
  const char* title;
  const char* remedy;
};

// What kubelets and controllers say of pods that can't start. The first match of a pod counts.
constexpr EventRule kEventRules[] = {
    {"FailedCreatePodSandBox", "failed to assign an IP address", "NoFreeAddresses", 94,
     "The subnet has no free IP address for the pod.",
     "each EFA interface takes one as well: use efa-only interfaces, a larger subnet, or secondary CIDRs"},
    {"FailedCreatePodSandBox", "", "SandboxFails", 88, "The pod's network or sandbox can't be set up on its node.",
     "the node's network plugin or container runtime is unwell: its pods in kube-system say more"},
    {"FailedMount", "not found", "VolumeSourceMissing", 92, "A Secret or ConfigMap that a volume shows does not exist.",
     "create it, or mend volumes in spec.template"},
    {"FailedMount", "timed out", "VolumeNotMounted", 90, "A volume can't be mounted within its time.",
     "for FSx and EFS: security groups (988/tcp for Lustre, 2049/tcp for NFS), and whether the CSI driver runs on the "
     "node"},
    {"FailedMount", "", "VolumeNotMounted", 90, "A volume can't be mounted on the pod's node.",
     "the message says what the driver was told; see whether the CSI driver's pod runs on that node"},
    {"FailedAttachVolume", "Multi-Attach", "VolumeInUse", 91,
     "A volume can be attached to one node only, and is attached to another.",
     "checkpoints of a job on several nodes need a shared file system (ReadWriteMany)"},
    {"FailedAttachVolume", "", "VolumeNotAttached", 90, "A volume can't be attached to the pod's node.",
     "the message is the cloud's own"},
    {"Preempted", "", "Preempted", 75, "A pod of the job was preempted by a more important one.",
     "it is recovered as soon as there is room; a higher placement.priorityClassName protects it"},
};

void from_events(const Facts& facts, const PodFact& pod, Grouped& grouped) {
  const bool starting = pod.phase == "Pending";
  for (auto event = facts.events.rbegin(); event != facts.events.rend(); ++event) {
    if (event->object != "Pod/" + pod.name || event->type != "Warning") continue;
    for (const EventRule& rule : kEventRules) {
      if (event->reason != rule.reason || !contains(event->note, rule.text)) continue;
      if (!starting && std::string_view(rule.id) != "Preempted") continue;
      Finding& finding = grouped.add(rule.id, rule.weight, pod.name);
      finding.title = rule.title;
      finding.remedy = rule.remedy;
      if (finding.evidence.empty()) finding.evidence.push_back(event->note);
      return;
    }
  }
}

// Its image is large, or the registry slow: nothing is wrong yet.
bool pulling(const Facts& facts, const PodFact& pod) {
  bool pulling = false;
  for (const EventFact& event : facts.events) {
    if (event.object != "Pod/" + pod.name) continue;
    if (event.reason == "Pulling") pulling = true;
    if (event.reason == "Pulled" || event.reason == "Failed") pulling = false;
  }
  return pulling;
}

// Runs, and its launcher has not said hello: no slot carries its address.
void not_connected(const Facts& facts, const PodFact& pod, Grouped& grouped) {
  const auto& status = facts.job.status;
  if (api::terminal(status.phase) || pod.phase != "Running" || pod.deleted) return;
  if (status.ready + status.spare >= facts.job.spec.replicas + facts.job.spec.spares) return;
  if (!pod.created || facts.now - *pod.created < kConnectPatience || status.phase == api::Phase::kRunning) return;
  const bool known = std::any_of(status.slots.begin(), status.slots.end(), [&](const api::SlotStatus& slot) {
    return slot.pod_uid == pod.uid && !slot.address.empty();
  });
  if (known) return;
  const bool up = std::any_of(pod.containers.begin(), pod.containers.end(), [&](const ContainerFact& container) {
    return container.name == facts.job.spec.container && container.running;
  });
  if (!up) return;
  Finding& finding = grouped.add("LauncherNotConnected", 72, pod.name);
  finding.title = "Pods run, but their launchers have not reached the operator.";
  finding.remedy =
      "a NetworkPolicy or security group may keep pods from the Service pitcrew-channel (9443/tcp); the launcher's log "
      "says what it tries";
  finding.command = kubectl(facts, "logs " + pod.name + " -c " + facts.job.spec.container + " --tail 20");
}

void claims(const Facts& facts, Findings& findings) {
  if (api::terminal(facts.job.status.phase)) return;
  for (const ClaimFact& claim : facts.claims) {
    // A pod that runs has its volumes, whatever is known of them.
    const bool mounted = std::any_of(facts.pods.begin(), facts.pods.end(), [&](const PodFact& pod) {
      return pod.phase == "Running" && std::find(pod.claims.begin(), pod.claims.end(), claim.name) != pod.claims.end();
    });
    if (mounted) continue;
    if (!claim.exists) {
      findings.push_back({"ClaimMissing",
                          94,
                          "The PersistentVolumeClaim " + claim.name + " does not exist.",
                          {"a volume of spec.template names it"},
                          "create it, or mend claimName",
                          kubectl(facts, "get pvc")});
    } else if (claim.phase == "Pending" || claim.phase == "Lost") {
      Finding finding{claim.phase == "Lost" ? "ClaimLost" : "ClaimNotBound",
                      90,
                      "The PersistentVolumeClaim " + claim.name + " has no volume" +
                          (claim.phase == "Lost" ? " any more." : " yet."),
                      {"it is " + claim.phase + ", storage class '" + claim.storage_class + "'"},
                      "see whether the storage class exists and its provisioner runs",
                      kubectl(facts, "describe pvc " + claim.name)};
      for (const EventFact& event : facts.events) {
        if (event.object == "PersistentVolumeClaim/" + claim.name && event.type == "Warning") {
          finding.evidence.resize(1);
          finding.evidence.push_back(event.note);
        }
      }
      findings.push_back(std::move(finding));
    }
  }
}

}  // namespace

void judge_pods(const Facts& facts, Findings& findings) {
  claims(facts, findings);
  Grouped grouped(facts, findings);
  for (const PodFact& pod : facts.pods) {
    if (pod.deleted) {
      if (facts.now - *pod.deleted < kGoingPatience) continue;
      Finding& finding = grouped.add("StuckTerminating", 25, pod.name);
      finding.title = "Pods of the job hang in Terminating; their nodes are probably gone.";
      finding.remedy =
          "nothing waits for them: new pods have other names. To be rid of them, delete the node or force it";
      finding.command = kubectl(facts, "delete pod " + pod.name + " --grace-period=0 --force");
      continue;
    }
    if (pod.reason == "Evicted") {
      Finding& finding = grouped.add("Evicted", 74, pod.name);
      finding.title = "The kubelet evicted a pod of the job because its node ran short.";
      if (finding.evidence.empty()) finding.evidence.push_back(pod.message);
      finding.remedy = "give the container requests and limits for what ran short (memory, ephemeral-storage)";
    }
    for (const ContainerFact& container : pod.containers) {
      waiting(facts, pod, container, grouped);
      ended(facts, pod, container, grouped);
    }
    from_events(facts, pod, grouped);
    if (pod.phase == "Pending" && pulling(facts, pod) && pod.created && facts.now - *pod.created > kPullPatience) {
      Finding& finding = grouped.add("SlowPull", 35, pod.name);
      finding.title = "Images are still being pulled.";
      if (finding.evidence.empty()) finding.evidence.push_back("since " + spoken(facts.now - *pod.created));
      finding.remedy = "wait; a smaller image, a registry in the region, or images on the nodes make it faster";
    }
    not_connected(facts, pod, grouped);
  }
  grouped.finish();
}

}  // namespace pitcrew::cli
