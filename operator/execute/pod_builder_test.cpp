#include "operator/execute/pod_builder.hpp"

#include <gtest/gtest.h>

#include "lib/api/launcher_contract.hpp"
#include "lib/base/yaml.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::control {
namespace {

constexpr char kTemplate[] = R"(
metadata:
  labels: {team: a}
  annotations: {note: keep me}
spec:
  someFieldOfTomorrow: {kept: [1, 2.5, null, "x"]}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions: [{key: zone, operator: In, values: [a]}]
          - matchExpressions: [{key: zone, operator: In, values: [b]}]
  initContainers: [{name: prepare, image: p, command: [prepare]}]
  containers:
    - {name: helper, image: h, command: [help]}
    - name: train
      image: i
      command: [python, train.py]
      args: [--lr, "0.1"]
      env: [{name: A, value: b}]
      resources: {requests: {memory: 16Gi, cpu: 4}, limits: {memory: 16Gi, nvidia.com/gpu: 8}}
      volumeMounts: [{name: fsx, mountPath: /checkpoints}]
  volumes: [{name: fsx, persistentVolumeClaim: {claimName: fsx}}]
)";

api::TrainingJob job_of(const std::string& pod_template) {
  api::TrainingJob job;
  job.metadata.name = "llama";
  job.metadata.ns = "team-a";
  job.metadata.uid = "abcdef12-0000-0000-0000-000000000000";
  job.spec.container = "train";
  job.spec.pod_template = (*parse_yaml(pod_template))[0].json;
  return job;
}

// The training container's port by which /metrics is found, and what the launcher is told of it; 0: none.
std::pair<int, int> metrics_ports(const Json& pod, size_t container = 1) {
  std::pair<int, int> found{0, 0};
  const Json& train = pod["spec"]["containers"][container];
  for (const Json& port : train.value("ports", Json::array())) {
    if (port.value("name", "") == "pitcrew-metrics") found.first += port["containerPort"].get<int>();
  }
  for (const Json& variable : train["env"]) {
    if (variable["name"] == "PITCREW_METRICS_PORT") found.second += std::stoi(variable["value"].get<std::string>());
  }
  return found;
}

TEST(PodBuilder, a_monitor_finds_the_launchers_metrics_without_a_word_in_the_template) {
  const auto built = [](const char* path, Json value) {
    api::TrainingJob job = job_of(kTemplate);
    if (*path != '\0') job.spec.pod_template[Json::json_pointer(path)] = std::move(value);
    return metrics_ports(build_pod(job, Serial(0), "", "{}", {"launcher:1"}));
  };
  const Json ours = Json::array({{{"name", "pitcrew-metrics"}, {"containerPort", 7000}}});
  const Json theirs = Json::array({{{"name", "debug"}, {"containerPort", 9401}}});
  using Ports = std::pair<int, int>;
  EXPECT_EQ(built("", {}), Ports(9401, 9401));
  EXPECT_EQ(built("/spec/containers/1/ports", ours), Ports(7000, 7000)) << "the template's own stands";
  EXPECT_EQ(built("/spec/containers/1/ports", theirs), Ports(9402, 9402)) << "beside another of the container";
  EXPECT_EQ(built("/spec/containers/0/ports", theirs), Ports(9402, 9402)) << "beside another container's";
  EXPECT_EQ(built("/spec/hostNetwork", true), Ports(0, 0)) << "it would be the node's port";
}

TEST(PodBuilder, leaves_everything_of_the_template_that_is_not_a_documented_change) {
  const api::TrainingJob job = job_of(kTemplate);
  Json pod = build_pod(job, Serial(3), "", "{}", {"launcher:1"});
  EXPECT_EQ(pod["spec"]["someFieldOfTomorrow"], job.spec.pod_template["spec"]["someFieldOfTomorrow"]);
  EXPECT_EQ(pod["metadata"]["labels"]["team"], "a");
  EXPECT_EQ(pod["metadata"]["annotations"]["note"], "keep me");
  EXPECT_EQ(pod["spec"]["affinity"], job.spec.pod_template["spec"]["affinity"]);
  EXPECT_EQ(pod["spec"]["containers"][0], job.spec.pod_template["spec"]["containers"][0]);
  EXPECT_EQ(pod["spec"]["initContainers"][1], job.spec.pod_template["spec"]["initContainers"][0]);
  EXPECT_EQ(pod["spec"]["volumes"][0], job.spec.pod_template["spec"]["volumes"][0]);
  // The training container: without our additions it is the template's.
  Json& train = pod["spec"]["containers"][1];
  EXPECT_EQ(train["env"][0], Json({{"name", "A"}, {"value", "b"}}));
  EXPECT_EQ(train["resources"], job.spec.pod_template["spec"]["containers"][1]["resources"]);
}

TEST(PodBuilder, builds_the_whole_pod_of_a_plain_job) {
  api::TrainingJob job = job_of("spec: {containers: [{name: train, image: i, command: [train]}]}");
  job.spec.checkpoint.emplace();
  job.spec.checkpoint->memory.emplace();
  job.spec.checkpoint->memory->size = 1024;
  job.spec.placement.priority_class = "research";
  const Json pod = build_pod(job, Serial(7), "node-1", R"({"addresses":[]})", {"launcher:1"});
  const Json expected = (*parse_yaml(R"(
apiVersion: v1
kind: Pod
metadata:
  name: llama-abcde-7
  namespace: team-a
  labels: {pitcrew.dev/job: llama, pitcrew.dev/job-uid: abcdef12-0000-0000-0000-000000000000, pitcrew.dev/serial: "7", app.kubernetes.io/managed-by: pitcrew}
  annotations:
    pitcrew.dev/channel: '{"addresses":[]}'
    karpenter.sh/do-not-disrupt: "true"
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
  ownerReferences:
    - {apiVersion: pitcrew.dev/v1alpha1, kind: TrainingJob, name: llama, uid: abcdef12-0000-0000-0000-000000000000, controller: true, blockOwnerDeletion: true}
spec:
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 60
  priorityClassName: research
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]
  initContainers:
    - name: pitcrew-launcher
      image: launcher:1
      command: [/pitcrew-launcher, copy, /pitcrew/bin/pitcrew-launcher]
      resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 50m, memory: 32Mi}}
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: pitcrew-bin, mountPath: /pitcrew/bin}]
  containers:
    - name: train
      image: i
      command: [/pitcrew/bin/pitcrew-launcher, run, --, train]
      env:
        - {name: PITCREW_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: PITCREW_POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        - {name: PITCREW_POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: PITCREW_POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: PITCREW_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: PITCREW_JOB_UID, value: abcdef12-0000-0000-0000-000000000000}
        - {name: PITCREW_PROCESSES, value: "1"}
        - {name: PITCREW_METRICS_PORT, value: "9401"}
      ports: [{name: pitcrew-metrics, containerPort: 9401, protocol: TCP}]
      volumeMounts:
        - {name: pitcrew-bin, mountPath: /pitcrew/bin, readOnly: true}
        - {name: pitcrew-channel, mountPath: /pitcrew/channel, readOnly: true}
        - {name: pitcrew-token, mountPath: /pitcrew/token, readOnly: true}
        - {name: pitcrew-run, mountPath: /pitcrew/run}
        - {name: pitcrew-memory, mountPath: /pitcrew/memory}
  volumes:
    - {name: pitcrew-bin, emptyDir: {}}
    - name: pitcrew-channel
      downwardAPI: {items: [{path: channel.json, fieldRef: {fieldPath: "metadata.annotations['pitcrew.dev/channel']"}}]}
    - name: pitcrew-token
      projected: {sources: [{serviceAccountToken: {audience: pitcrew, expirationSeconds: 3600, path: token}}]}
    - {name: pitcrew-run, emptyDir: {}}
    - {name: pitcrew-memory, emptyDir: {medium: Memory, sizeLimit: "1024"}}
)"))[0]
                            .json;
  EXPECT_EQ(pod, expected) << Json::diff(expected, pod).dump(2);
}

TEST(PodBuilder, puts_the_pin_into_every_alternative_of_an_affinity) {
  const Json pod = build_pod(job_of(kTemplate), Serial(0), "node-1", "{}", {"launcher:1"});
  const Json& terms =
      pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
  ASSERT_EQ(terms.size(), 2u);
  for (const Json& term : terms) {
    EXPECT_EQ(term["matchFields"][0]["values"], Json::array({"node-1"}));
    EXPECT_EQ(term["matchExpressions"].size(), 1u);
  }
  EXPECT_EQ((*kube::Pod::decode(pod)).required_node, "node-1");
}

TEST(PodBuilder, puts_the_command_and_its_arguments_behind_the_launcher) {
  const Json pod = build_pod(job_of(kTemplate), Serial(0), "", "{}", {"launcher:1"});
  const Json& train = pod["spec"]["containers"][1];
  EXPECT_EQ(train["command"], Json::array({api::launcher::kBinary, "run", "--", "python", "train.py", "--lr", "0.1"}));
  EXPECT_FALSE(train.contains("args"));
}

TEST(PodBuilder, adds_the_memory_tier_to_request_and_limit) {
  api::TrainingJob job = job_of(kTemplate);
  job.spec.checkpoint.emplace();
  job.spec.checkpoint->memory.emplace();
  job.spec.checkpoint->memory->size = uint64_t{4} << 30;
  const Json pod = build_pod(job, Serial(0), "", "{}", {"launcher:1"});
  const Json& resources = pod["spec"]["containers"][1]["resources"];
  EXPECT_EQ(resources["requests"]["memory"], std::to_string(uint64_t{20} << 30));
  EXPECT_EQ(resources["limits"]["memory"], std::to_string(uint64_t{20} << 30));
  const auto shape = shape_of(job, {"launcher:1"});
  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->requests.at("memory"), (int64_t{20} << 30) * 1000);
}

TEST(PodBuilder, shape_names_what_a_node_must_have) {
  const auto shape = shape_of(job_of(kTemplate), {"launcher:1"});
  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->processes, 8u);
  EXPECT_EQ(shape->requests.at("nvidia.com/gpu"), 8000);
  ASSERT_EQ(shape->affinity.size(), 2u);
  EXPECT_EQ(shape->affinity[1][0].key, "zone");
  EXPECT_EQ(shape->affinity[1][0].values, std::vector<std::string>{"b"});
  EXPECT_EQ(shape->grace, seconds(60));
}

}  // namespace
}  // namespace pitcrew::control
