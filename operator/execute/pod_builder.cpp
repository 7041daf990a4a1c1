#include "operator/execute/pod_builder.hpp"

#include "lib/api/launcher_contract.hpp"
#include "lib/kube/types/disruption_budget.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/kube/types/quantity.hpp"

namespace pitcrew::control {
namespace {

namespace contract = api::launcher;

constexpr char kKarpenterDoNotDisrupt[] = "karpenter.sh/do-not-disrupt";
constexpr char kAutoscalerSafeToEvict[] = "cluster-autoscaler.kubernetes.io/safe-to-evict";
constexpr char kMetricsPortName[] = "pitcrew-metrics";
constexpr int kMetricsPort = 9401;  // where the template names none
constexpr char kVolumeBinary[] = "pitcrew-bin";
constexpr char kVolumeChannel[] = "pitcrew-channel";
constexpr char kVolumeToken[] = "pitcrew-token";
constexpr char kVolumeMemory[] = "pitcrew-memory";
constexpr char kVolumeRun[] = "pitcrew-run";
constexpr int kAboveAnyGang = 1'000'000;
constexpr int kTokenSeconds = 3600;
constexpr int kLauncherUser = 65532;  // "nonroot" of distroless images: nobody's in particular

bool has_memory_tier(const api::TrainingJob& job) { return job.spec.checkpoint && job.spec.checkpoint->memory; }

Json* training_container(Json& pod, const std::string& name) {
  for (Json& container : pod["spec"]["containers"]) {
    if (container.value("name", "") == name) return &container;
  }
  return nullptr;
}

const Json* training_container(const api::TrainingJob& job) {
  const Json& pod = job.spec.pod_template;
  if (!pod.contains("spec") || !pod["spec"].contains("containers")) return nullptr;
  for (const Json& container : pod["spec"]["containers"]) {
    if (container.value("name", "") == job.spec.container) return &container;
  }
  return nullptr;
}

Json owned_by(const api::TrainingJob& job) {
  return Json::array({{{"apiVersion", api::TrainingJob::type().api_version()},
                       {"kind", api::TrainingJob::type().kind},
                       {"name", job.metadata.name},
                       {"uid", job.metadata.uid},
                       {"controller", true},
                       {"blockOwnerDeletion", true}}});
}

// All containers' limits together: what a quota counts.
kube::Resources limits_of(const Json& spec) {
  kube::Resources total;
  for (const Json& container : spec.value("containers", Json::array())) {
    const Json::json_pointer path("/resources/limits");
    if (!container.contains(path) || !container.at(path).is_object()) continue;
    kube::Resources limits;
    kube::add_quantities(container.at(path), limits);
    for (const auto& [name, amount] : limits) total[name] += amount;
  }
  return total;
}

void set_metadata(const api::TrainingJob& job, Serial serial, const std::string& channel_json, Json& pod) {
  Json& metadata = pod["metadata"];
  if (!metadata.is_object()) metadata = Json::object();
  metadata["name"] = api::pod_name(job, serial);
  metadata["namespace"] = job.metadata.ns;
  metadata["labels"][api::label::kJob] = job.metadata.name;
  metadata["labels"][api::label::kJobUid] = job.metadata.uid;
  metadata["labels"][api::label::kSerial] = std::to_string(serial.value);
  metadata["labels"][api::label::kManagedBy] = "pitcrew";
  metadata["annotations"][api::annotation::kChannel] = channel_json;
  metadata["annotations"][kKarpenterDoNotDisrupt] = "true";
  metadata["annotations"][kAutoscalerSafeToEvict] = "false";
  metadata["ownerReferences"] = owned_by(job);
}

// Terms are alternatives, so the pin goes into each.
void pin(const std::string& node, Json& spec) {
  Json& terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
  if (!terms.is_array() || terms.empty()) terms = Json::array({Json::object()});
  for (Json& term : terms) {
    term["matchFields"].push_back({{"key", "metadata.name"}, {"operator", "In"}, {"values", Json::array({node})}});
  }
}

Json field_variable(const char* name, const char* path) {
  return {{"name", name}, {"valueFrom", {{"fieldRef", {{"fieldPath", path}}}}}};
}

// What the init container needs is below what any training container asks for, so it adds nothing to the pod's
// requests; with limits equal to requests it takes no pod out of the Guaranteed class. Its user is named, since the
// pod's own may be root, and then runAsNonRoot would be refused by the kubelet. Pod Security "restricted" lets it in.
Json init_container(const PodBuilderSettings& settings) {
  const Json amounts{{"cpu", "50m"}, {"memory", "32Mi"}};
  return {{"name", contract::kInitContainer},
          {"image", settings.launcher_image},
          {"command", {"/pitcrew-launcher", "copy", contract::kBinary}},
          {"resources", {{"requests", amounts}, {"limits", amounts}}},
          {"terminationMessagePolicy", "FallbackToLogsOnError"},
          {"securityContext",
           {{"allowPrivilegeEscalation", false},
            {"readOnlyRootFilesystem", true},
            {"runAsNonRoot", true},
            {"runAsUser", kLauncherUser},
            {"runAsGroup", kLauncherUser},
            {"seccompProfile", {{"type", "RuntimeDefault"}}},
            {"capabilities", {{"drop", Json::array({"ALL"})}}}}},
          {"volumeMounts", Json::array({{{"name", kVolumeBinary}, {"mountPath", contract::kBinaryFolder}}})}};
}

void add_volumes(const api::TrainingJob& job, Json& spec) {
  Json& volumes = spec["volumes"];
  volumes.push_back({{"name", kVolumeBinary}, {"emptyDir", Json::object()}});
  const std::string field = std::string("metadata.annotations['") + api::annotation::kChannel + "']";
  volumes.push_back(
      {{"name", kVolumeChannel},
       {"downwardAPI", {{"items", Json::array({{{"path", "channel.json"}, {"fieldRef", {{"fieldPath", field}}}}})}}}});
  const Json token{{"serviceAccountToken",
                    {{"audience", api::channel::kAudience}, {"expirationSeconds", kTokenSeconds}, {"path", "token"}}}};
  volumes.push_back({{"name", kVolumeToken}, {"projected", {{"sources", Json::array({token})}}}});
  volumes.push_back({{"name", kVolumeRun}, {"emptyDir", Json::object()}});
  if (!has_memory_tier(job)) return;
  Json memory{{"medium", "Memory"}};
  if (const auto& size = job.spec.checkpoint->memory->size) memory["sizeLimit"] = std::to_string(*size);
  volumes.push_back({{"name", kVolumeMemory}, {"emptyDir", memory}});
}

// Files in memory count against the container that writes them, so their size goes on top of what it asks for.
void add_memory(uint64_t size, Json& container) {
  for (const char* kind : {"requests", "limits"}) {
    if (!container.contains("resources") || !container["resources"].contains(kind)) continue;
    Json& amounts = container["resources"][kind];
    if (!amounts.contains("memory")) continue;
    const std::string text =
        amounts["memory"].is_string() ? amounts["memory"].get<std::string>() : amounts["memory"].dump();
    const auto before = kube::parse_quantity(text);
    if (!before) continue;  // the API server refuses it with a better message
    amounts["memory"] = std::to_string(static_cast<uint64_t>(*before) / 1000 + size);
  }
}

bool port_taken(const Json& spec, int number) {
  for (const char* kind : {"initContainers", "containers"}) {
    for (const Json& container : spec.value(kind, Json::array())) {
      for (const Json& port : container.value("ports", Json::array())) {
        if (port.value("containerPort", 0) == number) return true;
      }
    }
  }
  return false;
}

// The port of the launcher's /metrics, by which PodMonitors find it: the template's own of that name, else one is
// added. 0: none; a pod in its host's network would hold the host's port, and keep a second one off the node.
int metrics_port(const Json& spec, Json& container) {
  for (const Json& port : container.value("ports", Json::array())) {
    if (port.value("name", "") == kMetricsPortName) return port.value("containerPort", 0);
  }
  if (spec.value("hostNetwork", false)) return 0;
  int number = kMetricsPort;
  while (port_taken(spec, number)) ++number;
  container["ports"].push_back({{"name", kMetricsPortName}, {"containerPort", number}, {"protocol", "TCP"}});
  return number;
}

void wrap_container(const api::TrainingJob& job, const Json& spec, Json& container) {
  Json command = Json::array({contract::kBinary, "run", "--"});
  for (const char* part : {"command", "args"}) {
    if (!container.contains(part)) continue;
    for (const Json& word : container[part]) command.push_back(word);
  }
  container["command"] = std::move(command);
  container.erase("args");

  Json& env = container["env"];
  env.push_back(field_variable(contract::kPodName, "metadata.name"));
  env.push_back(field_variable(contract::kPodUid, "metadata.uid"));
  env.push_back(field_variable(contract::kPodNamespace, "metadata.namespace"));
  env.push_back(field_variable(contract::kPodIp, "status.podIP"));
  env.push_back(field_variable(contract::kNodeName, "spec.nodeName"));
  env.push_back({{"name", contract::kJobUid}, {"value", job.metadata.uid}});
  env.push_back({{"name", contract::kProcesses}, {"value", std::to_string(processes_of(job))}});
  if (const int port = metrics_port(spec, container); port != 0)
    env.push_back({{"name", contract::kMetricsPort}, {"value", std::to_string(port)}});

  Json& mounts = container["volumeMounts"];
  mounts.push_back({{"name", kVolumeBinary}, {"mountPath", contract::kBinaryFolder}, {"readOnly", true}});
  mounts.push_back({{"name", kVolumeChannel}, {"mountPath", contract::kChannelFolder}, {"readOnly", true}});
  mounts.push_back({{"name", kVolumeToken}, {"mountPath", contract::kTokenFolder}, {"readOnly", true}});
  mounts.push_back({{"name", kVolumeRun}, {"mountPath", contract::kRunFolder}});
  if (!has_memory_tier(job)) return;
  mounts.push_back({{"name", kVolumeMemory}, {"mountPath", contract::kMemoryFolder}});
  if (const auto& size = job.spec.checkpoint->memory->size) add_memory(*size, container);
}

std::vector<std::vector<NodeRequirement>> required_terms(const Json& spec) {
  std::vector<std::vector<NodeRequirement>> terms;
  const Json::json_pointer path(
      "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
  if (!spec.contains(path)) return terms;
  for (const Json& term : spec.at(path)) {
    std::vector<NodeRequirement> requirements;
    for (const char* part : {"matchExpressions", "matchFields"}) {
      if (!term.contains(part)) continue;
      for (const Json& requirement : term.at(part)) {
        requirements.push_back({requirement.value("key", ""), requirement.value("operator", ""),
                                requirement.value("values", std::vector<std::string>{})});
      }
    }
    if (!requirements.empty()) terms.push_back(std::move(requirements));
  }
  return terms;
}

}  // namespace

uint32_t processes_of(const api::TrainingJob& job) {
  if (job.spec.processes_per_replica) return *job.spec.processes_per_replica;
  const Json* container = training_container(job);
  if (container == nullptr || !container->contains("resources")) return 1;
  int64_t gpus = 0;
  for (const char* kind : {"limits", "requests"}) {
    if (!(*container)["resources"].contains(kind)) continue;
    const Json& amounts = (*container)["resources"][kind];
    if (gpus == 0 && amounts.contains("nvidia.com/gpu")) {
      const Json& amount = amounts["nvidia.com/gpu"];
      gpus = kube::parse_quantity(amount.is_string() ? amount.get<std::string>() : amount.dump()).value_or(0) / 1000;
    }
  }
  return gpus > 0 ? static_cast<uint32_t>(gpus) : 1;
}

Json build_pod(const api::TrainingJob& job, Serial serial, const std::string& node, const std::string& channel_json,
               const PodBuilderSettings& settings) {
  Json pod = job.spec.pod_template;
  pod["apiVersion"] = "v1";
  pod["kind"] = "Pod";
  set_metadata(job, serial, channel_json, pod);
  Json& spec = pod["spec"];
  if (!spec.contains("restartPolicy")) spec["restartPolicy"] = "OnFailure";
  if (!spec.contains("terminationGracePeriodSeconds")) spec["terminationGracePeriodSeconds"] = kDefaultGraceSeconds;
  if (!job.spec.placement.priority_class.empty()) spec["priorityClassName"] = job.spec.placement.priority_class;
  if (!node.empty()) pin(node, spec);
  Json inits = Json::array({init_container(settings)});
  if (spec.contains("initContainers")) {
    for (Json& init : spec["initContainers"]) inits.push_back(std::move(init));
  }
  spec["initContainers"] = std::move(inits);
  if (Json* container = training_container(pod, job.spec.container)) wrap_container(job, spec, *container);
  add_volumes(job, spec);
  return pod;
}

std::string budget_name(const api::TrainingJob& job) { return job.metadata.name + "-" + job.metadata.uid.substr(0, 5); }

Json build_budget(const api::TrainingJob& job) {
  return {{"apiVersion", kube::DisruptionBudget::type().api_version()},
          {"kind", kube::DisruptionBudget::type().kind},
          {"metadata",
           {{"name", budget_name(job)},
            {"namespace", job.metadata.ns},
            {"labels",
             {{api::label::kJob, job.metadata.name},
              {api::label::kJobUid, job.metadata.uid},
              {api::label::kManagedBy, "pitcrew"}}},
            {"ownerReferences", owned_by(job)}}},
          {"spec",
           {{"minAvailable", kAboveAnyGang},
            {"unhealthyPodEvictionPolicy", "AlwaysAllow"},
            {"selector", {{"matchLabels", {{api::label::kJobUid, job.metadata.uid}}}}}}}};
}

Result<PodShape> shape_of(const api::TrainingJob& job, const PodBuilderSettings& settings) {
  const Json json = build_pod(job, Serial(0), "", "", settings);
  auto pod = kube::Pod::decode(json);
  if (!pod) return pod.error().with_context("pod template of " + to_string(job.metadata.key()));
  PodShape shape;
  shape.requests = pod->requests;
  shape.limits = limits_of(json["spec"]);
  shape.node_selector = pod->node_selector;
  shape.tolerations = pod->tolerations;
  shape.affinity = required_terms(json["spec"]);
  shape.processes = processes_of(job);
  shape.grace = seconds(json["spec"].value("terminationGracePeriodSeconds", kDefaultGraceSeconds));
  return shape;
}

}  // namespace pitcrew::control
