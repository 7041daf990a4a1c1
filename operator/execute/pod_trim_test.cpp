#include "operator/execute/pod_trim.hpp"

#include <gtest/gtest.h>

#include "lib/api/training_job.hpp"

namespace pitcrew::control {
namespace {

std::shared_ptr<kube::Pod> full_pod() {
  auto pod = std::make_shared<kube::Pod>();
  pod->metadata = {.name = "p", .ns = "team", .uid = "u", .resource_version = "7"};
  pod->metadata.labels = {{api::label::kSerial, "3"}, {api::label::kJobUid, "j"}, {"app", "x"}};
  pod->metadata.annotations = {{api::annotation::kChannel, std::string(2000, 'c')}, {"note", std::string(5000, 'n')}};
  pod->metadata.finalizers = {"f"};
  pod->node_name = "n1";
  pod->required_node = "n1";
  pod->requests = {{"cpu", 1000}};
  pod->tolerations = {{"a", "Exists", "", ""}};
  pod->phase = kube::PodPhase::kRunning;
  pod->pod_ip = "10.0.0.1";
  pod->initializing = {{.name = "fetch", .running = true}};
  pod->containers = {{.name = "train", .running = true}};
  return pod;
}

TEST(PodTrim, of_somebody_elses_pod_only_its_footprint_is_kept) {
  const auto pod = full_pod();
  pod->metadata.owners = {{"apps/v1", "ReplicaSet", "r", "r-1", true, true}};
  const auto kept = trim_pod(pod);
  EXPECT_EQ(kept->metadata.key(), pod->metadata.key());
  EXPECT_EQ(kept->metadata.resource_version, "7");
  EXPECT_EQ(kept->node_name, "n1");
  EXPECT_EQ(kept->requests, pod->requests);
  EXPECT_EQ(kept->phase, kube::PodPhase::kRunning);
  EXPECT_TRUE(kept->metadata.labels.empty() && kept->metadata.annotations.empty() && kept->containers.empty());
}

TEST(PodTrim, of_our_pods_everything_is_kept_that_decisions_rest_on) {
  const auto pod = full_pod();
  pod->metadata.owners = {{api::TrainingJob::type().api_version(), "TrainingJob", "j", "j", true, true}};
  const auto kept = trim_pod(pod);
  EXPECT_EQ(kept->containers, pod->containers);
  EXPECT_EQ(kept->initializing, pod->initializing);
  EXPECT_EQ(kept->pod_ip, "10.0.0.1");
  ASSERT_NE(kept->metadata.controller(), nullptr);
  EXPECT_EQ(kept->metadata.controller()->uid, "j");
  EXPECT_EQ(kept->metadata.controller()->kind, "TrainingJob");
  EXPECT_EQ(kept->metadata.labels.at(api::label::kSerial), "3");
  ASSERT_EQ(kept->metadata.annotations.size(), 1u);
  EXPECT_EQ(kept->metadata.annotations.at(api::annotation::kChannel), channel_mark(std::string(2000, 'c')));
  EXPECT_NE(channel_mark("a"), channel_mark("b"));
}

}  // namespace
}  // namespace pitcrew::control
