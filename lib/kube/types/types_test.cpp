#include <gtest/gtest.h>

#include "lib/kube/transport/payload.hpp"
#include "lib/kube/types/disruption_budget.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/kube/types/quantity.hpp"
#include "lib/kube/types/resource_quota.hpp"

namespace pitcrew::kube {
namespace {

Json json(const char* text) { return *parse_json(text); }

TEST(Quantity, reads_what_kubernetes_writes) {
  EXPECT_EQ(*parse_quantity("8"), 8000);
  EXPECT_EQ(*parse_quantity("1500m"), 1500);
  EXPECT_EQ(*parse_quantity("0.5"), 500);
  EXPECT_EQ(*parse_quantity("16Gi"), 16ll * 1024 * 1024 * 1024 * 1000);
  EXPECT_EQ(*parse_quantity("1.5Ki"), 1536'000);
  EXPECT_EQ(*parse_quantity("2M"), 2'000'000'000);
  EXPECT_EQ(*parse_quantity("1e3"), 1'000'000);
  EXPECT_EQ(*parse_quantity("1n"), 1);  // rounded up
  EXPECT_EQ(*parse_quantity("-1"), -1000);
  for (const char* wrong : {"", "x", "1x", ".", "1.2.3", "99999999999999999999", "9999999999Pi", "Gi"}) {
    EXPECT_FALSE(parse_quantity(wrong)) << wrong;
  }
  EXPECT_EQ(format_quantity(8000), "8");
  EXPECT_EQ(format_quantity(1500), "1500m");
}

TEST(ResourceQuotaType, reads_what_the_quota_controller_has_counted) {
  const auto quota = ResourceQuota::decode(json(R"({"kind":"ResourceQuota","metadata":{"name":"q"},
    "spec":{"hard":{"pods":"9","requests.cpu":"8"},"scopes":["NotTerminating"]},
    "status":{"used":{"pods":"2","requests.cpu":"1500m"}}})"));
  ASSERT_TRUE(quota) << quota.error().message;
  EXPECT_EQ(quota->hard, (Resources{{"pods", 9000}, {"requests.cpu", 8000}}));
  EXPECT_EQ(quota->used, (Resources{{"pods", 2000}, {"requests.cpu", 1500}}));
  EXPECT_EQ(quota->scopes, std::vector<std::string>{"NotTerminating"});
  EXPECT_FALSE(quota->scope_selector);
}

TEST(DisruptionBudgetType, reads_numbers_and_percentages) {
  const auto budget = DisruptionBudget::decode(json(R"({"kind":"PodDisruptionBudget","metadata":{"name":"b"},
    "spec":{"minAvailable":"50%","maxUnavailable":0,"unhealthyPodEvictionPolicy":"AlwaysAllow"}})"));
  ASSERT_TRUE(budget) << budget.error().message;
  EXPECT_EQ(budget->min_available, "50%");
  EXPECT_EQ(budget->max_unavailable, "0");
  EXPECT_EQ(budget->unhealthy_eviction, "AlwaysAllow");
}

// Every field is set, so that one which selection() forgets is missed.
Pod whole_pod() {
  Pod pod;
  pod.metadata = {.name = "a-12345-0", .ns = "team", .uid = "u1", .resource_version = "7"};
  pod.metadata.labels = {{"pitcrew.dev/job", "a"}};
  pod.metadata.owners = {{"pitcrew.dev/v1alpha1", "TrainingJob", "a", "j1", true, true}};
  pod.metadata.deletion_time = Instant(seconds(1'700'000'000));
  pod.node_name = "n1";
  pod.required_node = "n1";
  pod.node_selector = {{"zone", "a"}};
  pod.tolerations = {{"gpu", "Exists", "", "NoSchedule"}};
  pod.requests = {{"cpu", 1500}, {"nvidia.com/gpu", 8000}};
  pod.phase = PodPhase::kRunning;
  pod.host_ip = "10.0.0.1";
  pod.pod_ip = "10.1.0.1";
  pod.start_time = Instant(seconds(1'700'000'001));
  pod.scheduled = pod.ready = true;
  ContainerStatus container{.name = "train", .running = true, .ready = true, .restarts = 2};
  container.last_terminated = Termination{137, 9, "OOMKilled", "out of memory", Instant(seconds(1'700'000'002))};
  ContainerStatus waiting{.name = "side", .waiting_reason = "ImagePullBackOff", .waiting_message = "no such image"};
  waiting.terminated = Termination{1, 0, "Error", "", Instant(seconds(1'700'000'003))};
  container.started = Instant(seconds(1'700'000'004));
  pod.initializing = {{.name = "fetch", .waiting_reason = "CrashLoopBackOff", .waiting_message = "back-off 20s"}};
  pod.containers = {container, waiting};
  return pod;
}

Node whole_node() {
  Node node;
  node.metadata.name = "n1";
  node.provider_id = "aws:///us-east-1a/i-1";
  node.unschedulable = true;
  node.taints = {{"pitcrew.dev/unhealthy", "x", "NoSchedule"}};
  node.allocatable = {{"cpu", 8000}, {"memory", 1024'000}};
  node.conditions = {{"Ready", "True", "KubeletReady", "fine", Instant(seconds(5))}};
  node.internal_ip = "10.0.0.1";
  return node;
}

TEST(PodType, a_pod_comes_back_as_it_was_encoded) {
  const Pod pod = whole_pod();
  const auto again = Pod::decode(pod.encode());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, pod);
}

TEST(PodType, selection_names_all_that_decode_reads) {
  Pod pod = whole_pod();
  Json json = pod.encode();
  json["metadata"]["managedFields"] = Json::array({{{"manager", "kubelet"}}});
  json["spec"]["overhead"]["cpu"] = "250m";
  json["spec"]["containers"][0]["env"] = Json::array({{{"name", "A"}, {"value", "B"}}});
  json["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1Gi";
  json["spec"]["initContainers"] =
      Json::array({{{"name", "side"}, {"restartPolicy", "Always"}, {"resources", {{"requests", {{"cpu", "100m"}}}}}},
                   {{"name", "first"}, {"image", "x"}, {"resources", {{"requests", {{"cpu", "9"}}}}}}});
  json["status"]["reason"] = "Evicted";
  json["status"]["message"] = "the node was low on memory";
  json["status"]["conditions"][0]["status"] = "False";
  json["status"]["conditions"][0]["message"] = "0/3 nodes are available";
  const auto full = Pod::decode(json);
  ASSERT_TRUE(full);
  EXPECT_EQ(full->requests.at("cpu"), 9350);
  EXPECT_EQ(full->unschedulable_message, "0/3 nodes are available");
  EXPECT_EQ(full->containers[1].waiting_message, "no such image");
  const auto kept = parse_json(json.dump(), Pod::selection());
  ASSERT_TRUE(kept);
  EXPECT_FALSE((*kept)["metadata"].contains("managedFields"));
  EXPECT_EQ((*kept)["spec"]["containers"][0].size(), 1u) << "resources, and no env";
  EXPECT_EQ(*Pod::decode(*kept), *full);
  EXPECT_EQ(**Payload::text(json.dump()).as<Pod>(), *full);
}

TEST(NodeType, selection_names_all_that_decode_reads) {
  Json json = whole_node().encode();
  json["status"]["images"] = Json::array({{{"names", {"a", "b"}}, {"sizeBytes", 7}}});
  const auto kept = parse_json(json.dump(), Node::selection());
  ASSERT_TRUE(kept);
  EXPECT_FALSE((*kept)["status"].contains("images"));
  EXPECT_EQ(*Node::decode(*kept), whole_node());
}

TEST(PodType, requests_are_counted_as_the_scheduler_counts_them) {
  const auto pod = Pod::decode(json(R"({"kind":"Pod","metadata":{"name":"p"},"spec":{
    "initContainers":[
      {"name":"side","restartPolicy":"Always","resources":{"requests":{"cpu":"1"}}},
      {"name":"big","resources":{"requests":{"cpu":"4","memory":"1Gi"}}}],
    "containers":[
      {"name":"a","resources":{"requests":{"cpu":"500m"},"limits":{"cpu":"2","nvidia.com/gpu":8}}},
      {"name":"b","resources":{"limits":{"memory":"2Gi"}}}]}})"));
  ASSERT_TRUE(pod);
  EXPECT_EQ(pod->requests.at("cpu"), 5000);  // big and the sidecar before it
  EXPECT_EQ(pod->requests.at("memory"), 2ll * 1024 * 1024 * 1024 * 1000);
  EXPECT_EQ(pod->requests.at("nvidia.com/gpu"), 8000);
}

TEST(PodType, what_it_is_initializing_with_is_what_is_not_through) {
  const auto pod = Pod::decode(json(R"({"kind":"Pod","metadata":{"name":"p"},"spec":{
    "initContainers":[{"name":"side","restartPolicy":"Always"},{"name":"late","restartPolicy":"Always"}]},
    "status":{"initContainerStatuses":[
      {"name":"first","state":{"terminated":{"exitCode":0}}},
      {"name":"side","started":true,"state":{"running":{"startedAt":"2026-03-01T02:14:07Z"}}},
      {"name":"fetch","started":true,"state":{"running":{"startedAt":"2026-03-01T02:14:09Z"}}},
      {"name":"failed","restartCount":2,"state":{"terminated":{"exitCode":1}}},
      {"name":"late","started":false,"state":{"running":{}}},
      {"name":"last","state":{"waiting":{"reason":"PodInitializing"}}}]}})"));
  ASSERT_TRUE(pod);
  std::vector<std::string> names;
  for (const ContainerStatus& container : pod->initializing) names.push_back(container.name);
  EXPECT_EQ(names, (std::vector<std::string>{"fetch", "failed", "late", "last"}));
  EXPECT_EQ(*pod->initializing[0].started, *parse_rfc3339("2026-03-01T02:14:09Z"));
  EXPECT_FALSE(pod->initializing[2].started);
}

TEST(PodType, fields_of_a_wrong_type_leave_their_defaults) {
  const auto pod = Pod::decode(json(R"({"metadata":{"name":"p","labels":[1],"generation":"x","finalizers":{}},
    "spec":"?","status":{"phase":3,"containerStatuses":{"a":1},"conditions":[1,"x",null]}})"));
  ASSERT_TRUE(pod) << pod.error().message;
  EXPECT_EQ(pod->phase, PodPhase::kPending);
  EXPECT_TRUE(pod->containers.empty());
}

TEST(PodType, an_object_of_another_kind_or_without_a_name_is_an_error) {
  EXPECT_FALSE(Pod::decode(json(R"({"kind":"Node","metadata":{"name":"p"}})")));
  EXPECT_FALSE(Pod::decode(json(R"({"kind":"Pod","metadata":{}})")));
  EXPECT_FALSE(Pod::decode(json(R"({"kind":"Pod"})")));
  EXPECT_FALSE(Pod::decode(json("[]")));
}

TEST(NodeType, a_node_comes_back_as_it_was_encoded) {
  const auto again = Node::decode(whole_node().encode());
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, whole_node());
  EXPECT_TRUE(again->ready());
}

TEST(NodeType, a_node_whose_kubelet_is_silent_is_not_ready) {
  Node node;
  node.conditions = {{"Ready", "Unknown", "NodeStatusUnknown", "", Instant()}};
  EXPECT_FALSE(node.ready());
}

TEST(LeaseType, a_lease_comes_back_with_microseconds) {
  Lease lease;
  lease.metadata = {.name = "l", .ns = "pitcrew"};
  lease.holder = "me";
  lease.duration_seconds = 10;
  lease.transitions = 3;
  lease.acquired = Instant(seconds(10) + std::chrono::microseconds(123456));
  lease.renewed = *lease.acquired + seconds(1);
  const auto again = Lease::decode(lease.encode());
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, lease);
}

TEST(EventType, an_event_comes_back_as_it_was_encoded) {
  Event event;
  event.metadata = {.name = "a.1", .ns = "team"};
  event.regarding = {"v1", "Pod", "team", "p", "u"};
  event.event_type = "Warning";
  event.reason = "NodeLost";
  event.action = "Recover";
  event.note = "node n1 is gone";
  event.reporting_controller = "pitcrew.dev/operator";
  event.reporting_instance = "op-0";
  event.time = Instant(seconds(9));
  event.series_count = 2;
  event.series_last = Instant(seconds(11));
  const auto again = Event::decode(event.encode());
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, event);
}

}  // namespace
}  // namespace pitcrew::kube
