#include <algorithm>

#include "cli/diagnose/rules.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kInitContainer[] = "pitcrew-launcher";
constexpr Duration kPullPatience = minutes(3);
constexpr Duration kConnectPatience = seconds(45);
constexpr Duration kGoingPatience = minutes(2);
constexpr Duration kInitPatience = seconds(30);
constexpr size_t kInitLines = 3;

constexpr char kDescribe[] = "{kubectl} describe pod {pod}";
constexpr char kLauncherLog[] = "{kubectl} logs {pod} -c {container} --previous --tail 50";

constexpr Rule not_found(const char* text) {
  return {text,     "ImageNotFound", 94, "{whose} does not exist in its registry.", "mend the name or tag, or push it",
          kDescribe};
}
constexpr Rule not_allowed(const char* text) {
  return {text,
          "ImageNotAllowed",
          94,
          "{whose} may not be pulled: the registry refuses the credentials.",
          "add imagePullSecrets to spec.template.spec, or let the nodes' role read the repository",
          kDescribe};
}
constexpr Rule unreachable(const char* text) {
  return {text,
          "RegistryUnreachable",
          94,
          "{whose} can't be pulled: the registry can't be reached from the node.",
          "look at the node's network, DNS and proxy, and whether a VPC endpoint for the registry is missing",
          kDescribe};
}

// What the registry, or the runtime that asks it, says of an image. {whose}: "The image x", "Pitcrew's launcher image".
constexpr Rule kPullRules[] = {
    {"InvalidImageName", "ImageNameInvalid", 94, "{whose} is no valid image name.", "mend image: in spec.template",
     kDescribe},
    {"ErrImageNeverPull", "ImageNotOnNode", 94, "{whose} is not on the node, and may not be pulled.",
     "the container says imagePullPolicy: Never: take that out, or load the image on every node", kDescribe},
    not_found("not found"),
    not_found("manifest unknown"),
    not_found("MANIFEST_UNKNOWN"),
    not_allowed("unauthorized"),
    not_allowed("authentication required"),
    not_allowed("denied"),
    not_allowed("403 Forbidden"),
    unreachable("no such host"),
    unreachable("i/o timeout"),
    unreachable("connection refused"),
    unreachable("TLS handshake"),
    {"no space left", "NodeDiskFull", 94, "{whose} can't be pulled: the node's disk is full.",
     "free the node's disk, or give nodes a larger one", kDescribe},
    {"", "ImagePull", 94, "{whose} can't be pulled.", "the registry's answer says why", kDescribe},
};

// Why the kubelet doesn't make the container (CreateContainerConfigError), by its message.
constexpr Rule kConfigRules[] = {
    {"run as root", "RunsAsRoot", 93, "The image runs as root, which the template forbids (runAsNonRoot).",
     "set securityContext.runAsUser in spec.template to a user that may read the program", kDescribe},
    {"non-numeric user", "RunsAsRoot", 93,
     "The image names its user, so nobody can tell that it isn't root (runAsNonRoot).",
     "set securityContext.runAsUser in spec.template to the user's number", kDescribe},
    {"couldn't find key", "ConfigMissing", 93, "A Secret or ConfigMap lacks a key that the container needs.",
     "add the key, or mend env in spec.template", kDescribe},
    {"", "ConfigMissing", 93, "A Secret or ConfigMap that the container needs does not exist.",
     "create it, or mend env and envFrom in spec.template", kDescribe},
};

// Why the runtime doesn't start it (CreateContainerError, RunContainerError).
constexpr Rule kStartRules[] = {
    {"executable file not found", "ContainerCannotStart", 92, "The container runtime can't start the container.",
     "command in spec.template names a program that the image doesn't have", kDescribe},
    {"", "ContainerCannotStart", 92, "The container runtime can't start the container.",
     "the runtime's words say what it refuses: a mount, a device, a security setting", kDescribe},
};

constexpr Rule kStuckTerminating = {
    "",
    "StuckTerminating",
    25,
    "Pods of the job hang in Terminating; their nodes are probably gone.",
    "nothing waits for them: new pods have other names. To be rid of them, delete the node or force it",
    "{kubectl} delete pod {pod} --grace-period=0 --force"};
constexpr Rule kEvicted = {"",
                           "Evicted",
                           74,
                           "The kubelet evicted a pod of the job because its node ran short.",
                           "give the container requests and limits for what ran short (memory, ephemeral-storage)",
                           kDescribe};
constexpr Rule kSlowPull = {"",
                            "SlowPull",
                            35,
                            "Images are still being pulled.",
                            "wait; a smaller image, a registry in the region, or images on the nodes make it faster",
                            kDescribe};
constexpr Rule kNotConnected = {
    "",
    "LauncherNotConnected",
    72,
    "Pods run, but their launchers have not reached the operator.",
    "a NetworkPolicy or security group may keep pods from the Service pitcrew-channel (9443/tcp); the launcher's log "
    "says what it tries",
    "{kubectl} logs {pod} -c {container} --tail 20"};
constexpr Rule kNotInjected = {"",
                               "LauncherNotInjected",
                               93,
                               "The init container that brings Pitcrew's launcher fails.",
                               "see its log",
                               "{kubectl} logs {pod} -c {container}"};
constexpr Rule kOtherArchitecture = {"",
                                     "LauncherNotInjected",
                                     93,
                                     "The init container that brings Pitcrew's launcher fails.",
                                     "the launcher's image is of another architecture than the node",
                                     "{kubectl} logs {pod} -c {container}"};
constexpr Rule kInitFails = {"",
                             "InitContainerFails",
                             93,
                             "The init container {container} fails, and all other containers of its pod wait for it.",
                             "mend it in initContainers of spec.template, or what it needs",
                             "{kubectl} logs {pod} -c {container}{previous}"};
constexpr Rule kInitOutOfMemory = {
    "",
    "InitContainerFails",
    93,
    "The init container {container} runs out of its memory limit, and all other containers of its pod wait for it.",
    "raise its resources.limits.memory in initContainers of spec.template",
    "{kubectl} logs {pod} -c {container}{previous}"};
constexpr Rule kInitRuns = {
    "",
    "InitContainerRuns",
    71,
    "The init container {container} still runs, and all other containers of its pod wait for it.",
    "wait, if its log shows that it gets on; where it takes long by nature, placement.gangTimeout must be longer",
    "{kubectl} logs {pod} -c {container} --timestamps"};
constexpr Rule kOutOfMemory = {
    "",
    "OutOfMemory",
    91,
    "The training container ran out of its memory limit (host memory, not the GPU's).",
    "raise resources.limits.memory in spec.template, or use fewer data workers; PITCREW_MEMORY's size is part of it",
    kDescribe};
constexpr Rule kContract = {"",
                            "LauncherContract",
                            90,
                            "The launcher found that the pod lacks what the operator should have put there.",
                            "a webhook may have changed the pod; the launcher's first lines name what is missing",
                            kLauncherLog};
constexpr Rule kCrashLoops = {"",
                              "LauncherCrashLoops",
                              80,
                              "The training container ends again and again.",
                              "see what it said before it ended",
                              kLauncherLog};

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
  const bool said = container.waiting_reason == "InvalidImageName" || container.waiting_reason == "ErrImageNeverPull";
  const Words words = {
      {"pod", pod.name},
      {"whose", ours             ? "Pitcrew's launcher image"
                : container.init ? "The image " + container.image + " of init container " + container.name
                                 : "The image " + container.image}};
  Finding finding = finding_of(facts, *matching(kPullRules, said ? container.waiting_reason : message),
                               {message.empty() ? container.waiting_reason : message}, words);
  if (ours) {
    finding.id = "Launcher" + finding.id;
    finding.remedy += "; it is the operator's launcherImage (chart value image.registry)";
  }
  grouped.add(std::move(finding), pod.name);
}

void waiting(const Facts& facts, const PodFact& pod, const ContainerFact& container, Grouped& grouped) {
  const std::string& reason = container.waiting_reason;
  const std::string& message = container.waiting_message;
  if (reason == "ErrImagePull" || reason == "ImagePullBackOff" || reason == "InvalidImageName" ||
      reason == "ErrImageNeverPull" || reason == "RegistryUnavailable")
    return image(facts, pod, container, grouped);
  if (reason == "CreateContainerConfigError") {
    grouped.add(*matching(kConfigRules, message), pod.name, message);
  } else if (reason == "CreateContainerError" || reason == "RunContainerError") {
    grouped.add(*matching(kStartRules, message), pod.name, message);
  }
}

void ended(const Facts& facts, const PodFact& pod, const ContainerFact& container, Grouped& grouped) {
  const auto& last = container.ended ? container.ended : container.last_ended;
  if (!last || last->exit_code == 0) return;
  if (container.ended == std::nullopt && container.running && facts.job.status.phase == api::Phase::kRunning) return;
  const auto add = [&](const Rule& rule, const std::string& evidence) {
    grouped.add(finding_of(facts, rule, {evidence}, {{"pod", pod.name}, {"container", container.name}}), pod.name);
  };
  const std::string code = "exit code " + std::to_string(last->exit_code) + " " + last->reason;
  const std::string restarts = count_of(static_cast<uint64_t>(container.restarts), "restart");
  if (container.init && container.name == kInitContainer)
    return add(contains(last->message, "exec format") ? kOtherArchitecture : kNotInjected, code + " " + last->message);
  if (container.name != facts.job.spec.container) return;
  if (last->reason == "OOMKilled") {
    add(kOutOfMemory,
        "OOMKilled" + (last->finished ? ", " + ago(facts.now, *last->finished) : std::string()) + ", " + restarts);
  } else if (last->exit_code == 78) {
    add(kContract, last->message.empty() ? "exit code 78" : last->message);
  } else if (container.waiting_reason == "CrashLoopBackOff") {
    add(kCrashLoops, code + ", " + restarts);
  }
}

// The launcher's own fails in ended(); images and configuration are told in waiting().
void init_container(const Facts& facts, const PodFact& pod, Grouped& grouped) {
  const ContainerFact* container = initializing(pod);
  if (container == nullptr || api::terminal(facts.job.status.phase)) return;
  const auto& last = container->ended ? container->ended : container->last_ended;
  const bool fails = last && last->exit_code != 0;
  const Rule* rule = &kInitRuns;
  std::vector<std::string> evidence;
  if (fails && container->name != kInitContainer) {
    rule = last->reason == "OOMKilled" ? &kInitOutOfMemory : &kInitFails;
    evidence.push_back("exit code " + std::to_string(last->exit_code) +
                       (last->reason.empty() || last->reason == "Error" ? "" : " (" + last->reason + ")") +
                       (last->finished ? ", " + ago(facts.now, *last->finished) : std::string()) + ", " +
                       count_of(static_cast<uint64_t>(container->restarts), "restart"));
    if (!last->message.empty()) evidence.push_back(last->message);
  } else if (!fails && container->running && container->started && facts.now - *container->started >= kInitPatience) {
    evidence.push_back("for " + spoken(facts.now - *container->started) + " now");
  } else {
    return;
  }
  const auto lines = container->last_lines.value_or(std::vector<std::string>());
  if (container->last_lines && lines.empty()) evidence.push_back("it has said nothing");
  for (size_t i = lines.size() - std::min(lines.size(), kInitLines); i < lines.size(); ++i)
    evidence.push_back("it said: " + lines[i]);
  const std::string previous = fails && container->running ? " --previous" : "";
  Finding finding = finding_of(facts, *rule, std::move(evidence),
                               {{"pod", pod.name}, {"container", container->name}, {"previous", previous}});
  // Only a spare can be so far behind.
  if (facts.job.status.phase == api::Phase::kRunning) finding.weight /= 3;
  grouped.add(std::move(finding), pod.name);
}

struct EventRule {
  const char* reason;
  Rule rule;
};

// What kubelets and controllers say of pods that can't start. The first match of a pod counts.
constexpr EventRule kEventRules[] = {
    {"FailedCreatePodSandBox",
     {"failed to assign an IP address", "NoFreeAddresses", 94, "The subnet has no free IP address for the pod.",
      "each EFA interface takes one as well: use efa-only interfaces, a larger subnet, or secondary CIDRs", kDescribe}},
    {"FailedCreatePodSandBox",
     {"", "SandboxFails", 88, "The pod's network or sandbox can't be set up on its node.",
      "the node's network plugin or container runtime is unwell: its pods in kube-system say more", kDescribe}},
    {"FailedMount",
     {"not found", "VolumeSourceMissing", 92, "A Secret or ConfigMap that a volume shows does not exist.",
      "create it, or mend volumes in spec.template", kDescribe}},
    {"FailedMount",
     {"timed out", "VolumeNotMounted", 90, "A volume can't be mounted within its time.",
      "for FSx and EFS: security groups (988/tcp for Lustre, 2049/tcp for NFS), and whether the CSI driver runs on the "
      "node",
      kDescribe}},
    {"FailedMount",
     {"", "VolumeNotMounted", 90, "A volume can't be mounted on the pod's node.",
      "the message says what the driver was told; see whether the CSI driver's pod runs on that node", kDescribe}},
    {"FailedAttachVolume",
     {"Multi-Attach", "VolumeInUse", 91, "A volume can be attached to one node only, and is attached to another.",
      "checkpoints of a job on several nodes need a shared file system (ReadWriteMany)", kDescribe}},
    {"FailedAttachVolume",
     {"", "VolumeNotAttached", 90, "A volume can't be attached to the pod's node.", "the message is the cloud's own",
      kDescribe}},
    {"Preempted",
     {"", "Preempted", 75, "A pod of the job was preempted by a more important one.",
      "it is recovered as soon as there is room; a higher placement.priorityClassName protects it", kDescribe}},
};

void from_events(const Facts& facts, const PodFact& pod, Grouped& grouped) {
  const bool starting = pod.phase == "Pending";
  for (auto event = facts.events.rbegin(); event != facts.events.rend(); ++event) {
    if (event->object != "Pod/" + pod.name || event->type != "Warning") continue;
    for (const EventRule& one : kEventRules) {
      if (event->reason != one.reason || !contains(event->note, one.rule.text)) continue;
      if (!starting && std::string_view(one.rule.id) != "Preempted") continue;
      return grouped.add(one.rule, pod.name, event->note);
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
  grouped.add(finding_of(facts, kNotConnected, {}, {{"pod", pod.name}, {"container", facts.job.spec.container}}),
              pod.name);
}

// Its class binds it where its first pod is placed: nothing is wrong with it before that.
bool waits_for_its_pod(const Facts& facts, const ClaimFact& claim) {
  bool waits = false;
  for (const EventFact& event : facts.events) {
    if (event.object != "PersistentVolumeClaim/" + claim.name) continue;
    if (event.type == "Warning") return false;
    waits = waits || event.reason == "WaitForFirstConsumer" || event.reason == "WaitForPodScheduled";
  }
  return waits;
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
      if (waits_for_its_pod(facts, claim)) continue;
      Finding finding{claim.phase == "Lost" ? "ClaimLost" : "ClaimNotBound",
                      94,
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
      if (facts.now - *pod.deleted >= kGoingPatience) grouped.add(kStuckTerminating, pod.name, "");
      continue;
    }
    if (pod.reason == "Evicted") grouped.add(kEvicted, pod.name, pod.message);
    for (const ContainerFact& container : pod.containers) {
      waiting(facts, pod, container, grouped);
      ended(facts, pod, container, grouped);
    }
    init_container(facts, pod, grouped);
    from_events(facts, pod, grouped);
    if (pod.phase == "Pending" && pulling(facts, pod) && pod.created && facts.now - *pod.created > kPullPatience)
      grouped.add(kSlowPull, pod.name, "since " + spoken(facts.now - *pod.created));
    not_connected(facts, pod, grouped);
  }
  grouped.finish();
}

}  // namespace pitcrew::cli
