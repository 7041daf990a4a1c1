#include "cli/nodes/nodes.hpp"

#include <gtest/gtest.h>

namespace pitcrew::cli {
namespace {

const Instant kNow = *parse_rfc3339("2026-03-02T02:14:07Z");

kube::Node node(const std::string& name) {
  kube::Node node;
  node.metadata.name = name;
  node.metadata.uid = "uid-" + name;
  node.metadata.labels = {{"node.kubernetes.io/instance-type", "p5en.48xlarge"}};
  node.allocatable = {{"nvidia.com/gpu", 8000}};
  node.conditions = {{"Ready", "True", "KubeletReady", "", kNow - hours(1)}};
  return node;
}

FleetFacts fleet() {
  FleetFacts facts;
  facts.now = kNow;
  facts.nodes = {node("n0"), node("n1"), node("n2")};
  facts.nodes[1].unschedulable = true;
  facts.nodes[2].conditions[0] = {"Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.",
                                  kNow - minutes(4)};
  api::NodeHealth health;
  health.spec = {"", "uid-n1", "n1"};
  health.status.healthy = false;
  health.status.needs = api::HealthAction::kReplace;
  health.status.verdicts = {{"xid-79", "GPU-12", api::HealthSeverity::kFault, true, api::HealthAction::kReplace,
                             "GPU has fallen off the bus", kNow - minutes(3), kNow, 2}};
  facts.health = {health};
  kube::Pod pod;
  pod.metadata.ns = "team-a";
  pod.metadata.labels = {{api::label::kJob, "llama"}};
  pod.node_name = "n0";
  pod.requests = {{"nvidia.com/gpu", 8000}};
  facts.pods = {pod};
  return facts;
}

TEST(Nodes, the_unusable_come_first_with_the_reason) {
  EXPECT_EQ(print_nodes(fleet(), {100, false}, false),
            "NODE  STATE     HEALTH  GPUS  ASKED  JOBS          WHY\n"
            "n1    Cordoned  xid-79     8      0  -             GPU has fallen off the bus\n"
            "n2    Silent    -          8      0  -             Kubelet stopped posting node status.\n"
            "n0    Ready     -          8      8  team-a/llama  \n"
            "\n"
            "1 of 3 nodes usable; GPUs: 24, 8 asked for, 16 on unusable nodes\n");
}

TEST(Nodes, one_node_shows_all_that_is_known) {
  const std::string text = print_node(fleet(), "n1", {80, false});
  EXPECT_NE(text.find("n1: Cordoned, xid-79"), std::string::npos) << text;
  EXPECT_NE(text.find("needs     Replace"), std::string::npos) << text;
  EXPECT_NE(text.find("verdict   xid-79 on GPU-12, Fault, 2 times since 02:11:07Z"), std::string::npos) << text;
  EXPECT_EQ(print_node(fleet(), "n9", {80, false}), "");
}

}  // namespace
}  // namespace pitcrew::cli
