#include "lib/local/node/kubelet.hpp"

#include <gtest/gtest.h>

#include "lib/kube/types/pod.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "lib/local/node/node_controller.hpp"
#include "lib/local/node/scheduler.hpp"
#include "lib/local/node/simulated_runtime.hpp"

namespace pitcrew::local {
namespace {

// One simulated node, a scheduler, and containers that do nothing until the test says so.
class KubeletTest : public testing::Test {
 protected:
  KubeletTest() {
    settings_.node = "n1";
    settings_.allocatable = {{"cpu", "4"}, {"memory", "8Gi"}};
    kubelet_.emplace(loop_, node_transport_, *runtime_, controller_, Random(5), settings_);
    kubelet_->boot();
    scheduler_.start();
    loop_.run_for(seconds(2));
  }

  void create(const std::string& name, const std::string& cpu = "1", const std::string& pin = "") {
    Json spec{
        {"restartPolicy", "OnFailure"},
        {"terminationGracePeriodSeconds", 30},
        {"initContainers", Json::array({{{"name", "prepare"}, {"image", "i"}}})},
        {"containers", Json::array({{{"name", "c"}, {"image", "i"}, {"resources", {{"requests", {{"cpu", cpu}}}}}}})}};
    if (!pin.empty()) {
      spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
          Json::array(
              {{{"matchFields",
                 Json::array({{{"key", "metadata.name"}, {"operator", "In"}, {"values", Json::array({pin})}}})}}});
    }
    const Json pod{
        {"apiVersion", "v1"}, {"kind", "Pod"}, {"metadata", {{"name", name}, {"namespace", "a"}}}, {"spec", spec}};
    client_.create_raw(kube::Pod::type(), pod,
                       [](Result<kube::Payload> created) { ASSERT_TRUE(created.ok()) << created.error().message; });
    loop_.run_for(seconds(1));
  }
  kube::Ptr<kube::Pod> pod(const std::string& name) const {
    const auto found = server_.find(kube::Pod::type(), {"a", name});
    return found.empty() ? nullptr : *found.as<kube::Pod>();
  }
  void end(const std::string& id, int code, int signal = 0) {
    ContainerExit exit;
    exit.exit_code = code;
    exit.signal = signal;
    runtime_->exit(id, exit);
    loop_.run_for(milliseconds(500));
  }
  bool node_ready() const { return (*server_.find(kube::Node::type(), {"", "n1"}).as<kube::Node>())->ready(); }

  VirtualLoop loop_;
  ApiServer server_{loop_};
  MemoryTransport transport_{loop_, server_};
  MemoryTransport node_transport_{loop_, server_};
  kube::Client client_{loop_, transport_, 1};
  NodeController controller_{loop_, transport_, 2};
  Scheduler scheduler_{loop_, transport_, 3};
  std::vector<std::string> started_;
  std::vector<std::string> signaled_;
  std::optional<SimulatedRuntime> runtime_{
      std::in_place, loop_,
      SimulatedRuntime::Model{[this](const ContainerSpec& spec) { started_.push_back(spec.id); },
                              [this](const std::string& id, int) { signaled_.push_back(id); },
                              {},
                              {}}};
  KubeletSettings settings_;
  std::optional<Kubelet> kubelet_;
};

TEST_F(KubeletTest, a_pod_is_bound_started_and_ends_well) {
  create("p");
  ASSERT_EQ(started_.size(), 1u);
  EXPECT_EQ(pod("p")->phase, kube::PodPhase::kRunning);
  EXPECT_TRUE(pod("p")->ready);
  EXPECT_EQ(pod("p")->node_name, "n1");
  EXPECT_FALSE(pod("p")->pod_ip.empty());
  end(started_[0], 0);
  EXPECT_EQ(pod("p")->phase, kube::PodPhase::kSucceeded);
}

TEST_F(KubeletTest, a_failed_container_is_restarted_at_once_and_then_with_back_off) {
  create("p");
  end(started_[0], 137, 9);
  ASSERT_EQ(started_.size(), 2u) << "the first restart is at once";
  EXPECT_EQ(pod("p")->containers[0].restarts, 1);
  ASSERT_TRUE(pod("p")->containers[0].last_terminated);
  EXPECT_EQ(pod("p")->containers[0].last_terminated->signal, 9);
  end(started_[1], 1);
  EXPECT_EQ(started_.size(), 2u);
  EXPECT_EQ(pod("p")->containers[0].waiting_reason, "CrashLoopBackOff");
  loop_.run_for(seconds(10));
  EXPECT_EQ(started_.size(), 3u);
}

TEST_F(KubeletTest, a_deleted_pod_gets_its_grace_and_is_gone_when_it_has_ended) {
  create("p");
  client_.remove<kube::Pod>({"a", "p"}, {}, [](Status) {});
  loop_.run_for(seconds(1));
  EXPECT_EQ(signaled_, started_);
  EXPECT_TRUE(pod("p")->deleting());
  end(started_[0], 0);
  EXPECT_EQ(pod("p"), nullptr);
}

TEST_F(KubeletTest, a_pod_that_does_not_end_in_its_grace_is_killed) {
  create("p");
  client_.remove<kube::Pod>({"a", "p"}, {}, [](Status) {});
  loop_.run_for(seconds(29));
  EXPECT_NE(pod("p"), nullptr);
  loop_.run_for(seconds(3));
  EXPECT_EQ(pod("p"), nullptr);
}

TEST_F(KubeletTest, a_dead_node_is_not_ready_after_the_grace_and_its_pods_wait_for_it) {
  create("p");
  kubelet_->power_off();
  loop_.run_for(seconds(20));
  EXPECT_TRUE(node_ready()) << "nobody knows yet";
  EXPECT_EQ(pod("p")->phase, kube::PodPhase::kRunning);
  loop_.run_for(seconds(60));
  EXPECT_TRUE(node_ready()) << "it has booted again";
  EXPECT_EQ(started_.size(), 2u);
  EXPECT_EQ(pod("p")->containers[0].restarts, 1);
}

TEST_F(KubeletTest, a_frozen_node_is_tainted_and_its_pods_stay_terminating) {
  create("p");
  kubelet_->freeze();
  loop_.run_for(seconds(45));
  EXPECT_FALSE(node_ready());
  EXPECT_EQ((*server_.find(kube::Node::type(), {"", "n1"}).as<kube::Node>())->taints.size(), 2u);
  loop_.run_for(minutes(10));
  ASSERT_NE(pod("p"), nullptr);
  EXPECT_TRUE(pod("p")->deleting());
  kubelet_->power_off();
  loop_.run_for(minutes(2));
  EXPECT_TRUE(node_ready());
  EXPECT_TRUE((*server_.find(kube::Node::type(), {"", "n1"}).as<kube::Node>())->taints.empty());
  EXPECT_EQ(pod("p"), nullptr) << "the node came back and let it go";
}

TEST_F(KubeletTest, a_partitioned_node_runs_on_and_reports_when_it_is_back) {
  create("p");
  node_transport_.set_connected(false);
  kubelet_->set_partitioned(true);
  loop_.run_for(seconds(50));
  EXPECT_FALSE(node_ready());
  end(started_[0], 0);
  EXPECT_EQ(pod("p")->phase, kube::PodPhase::kRunning);
  node_transport_.set_connected(true);
  kubelet_->set_partitioned(false);
  loop_.run_for(seconds(5));
  EXPECT_TRUE(node_ready());
  EXPECT_EQ(pod("p")->phase, kube::PodPhase::kSucceeded);
}

TEST_F(KubeletTest, a_pod_that_fits_nowhere_says_why_and_is_bound_when_there_is_room) {
  create("big", "3");
  create("more", "3");
  EXPECT_TRUE(pod("more")->node_name.empty());
  EXPECT_NE(pod("more")->unschedulable_message.find("Insufficient cpu"), std::string::npos)
      << pod("more")->unschedulable_message;
  create("elsewhere", "1", "n7");
  EXPECT_TRUE(pod("elsewhere")->node_name.empty()) << "it is pinned to a node that is not there";
  end(started_[0], 0);
  loop_.run_for(seconds(2));
  EXPECT_EQ(pod("more")->node_name, "n1");
}

TEST_F(KubeletTest, a_robbed_node_takes_no_more) {
  scheduler_.rob("n1", {{"cpu", 4000}});
  create("p");
  EXPECT_TRUE(pod("p")->node_name.empty());
}

TEST_F(KubeletTest, a_quiet_node_makes_no_writes) {
  create("p");
  loop_.run_for(minutes(1));
  const uint64_t before = server_.writes();
  loop_.run_for(hours(1));
  EXPECT_EQ(server_.writes(), before);
}

}  // namespace
}  // namespace pitcrew::local
