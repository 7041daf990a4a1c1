#include "operator/decide/fit.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

class FitTest : public testing::Test {
 protected:
  FitTest() {
    job_ = std::make_shared<api::TrainingJob>();
    job_->metadata.name = "job";
    job_->metadata.uid = "abcde";
    nodes_ = std::make_shared<std::vector<NodeView>>();
    snapshot_.shape.requests = {{"nvidia.com/gpu", 8000}};
  }

  kube::Node& add(const std::string& name, int64_t gpus = 8) {
    auto node = std::make_shared<kube::Node>();
    node->metadata.name = name;
    node->conditions = {{"Ready", "True", "", "", {}}};
    nodes_->push_back({node, {{"nvidia.com/gpu", gpus * 1000}}});
    return *node;
  }

  Fit run(uint32_t pods) {
    snapshot_.job = job_;
    snapshot_.nodes = nodes_;
    const Situation situation(snapshot_, Instant(seconds(1)));
    return fit(situation, pods);
  }

  std::shared_ptr<api::TrainingJob> job_;
  std::shared_ptr<std::vector<NodeView>> nodes_;
  Snapshot snapshot_;
};

TEST_F(FitTest, all_or_none) {
  add("a");
  add("b");
  EXPECT_EQ(run(2).nodes, (std::vector<std::string>{"a", "b"}));
  const Fit three = run(3);
  EXPECT_TRUE(three.nodes.empty());
  EXPECT_EQ(three.reason, "needs room for 3 pods, there is room for 2");
}

TEST_F(FitTest, pods_are_spread_before_they_share_a_node) {
  add("a", 16);
  add("b", 8);
  EXPECT_EQ(run(3).nodes, (std::vector<std::string>{"a", "b", "a"}));
}

TEST_F(FitTest, a_node_that_passed_its_deep_check_comes_first_and_one_with_an_unchecked_fault_last) {
  const auto health = [&](const std::string& node, std::optional<Instant> fault, std::optional<Instant> check,
                          api::CheckOutcome outcome = api::CheckOutcome::kPassed) {
    auto made = std::make_shared<api::NodeHealth>();
    if (fault)
      made->status.history = {{*fault, "xid-79", "", api::HealthChange::kRaised, "", api::HealthSeverity::kFault}};
    if (check) made->status.checks = {{"c", "burn", outcome, "", *check}};
    add(node);
    nodes_->back().health = made;
  };
  const Instant early(seconds(10)), late(seconds(20));
  health("a", late, early);                               // passed before its fault
  health("b", early, late, api::CheckOutcome::kUnknown);  // the check said nothing
  health("c", {}, {});                                    // nothing is known
  health("d", early, late);                               // good again
  EXPECT_EQ(run(1).nodes, (std::vector<std::string>{"d"}));
  EXPECT_EQ(run(4).nodes, (std::vector<std::string>{"d", "c", "a", "b"}));
}

TEST_F(FitTest, reasons_are_counted_by_kind) {
  add("a").unschedulable = true;
  add("b").conditions[0].status = "Unknown";
  add("c").taints = {{"gpu", "yes", "NoSchedule"}};
  add("d", 4);
  job_->status.avoided_nodes = {"e"};
  add("e");
  EXPECT_EQ(run(1).reason,
            "needs room for 1 pod, there is room for 0; 1 node avoided by the job; 1 node cordoned; 1 node not ready; "
            "1 node tainted; 1 node with too little free nvidia.com/gpu");
}

TEST_F(FitTest, a_toleration_opens_a_tainted_node) {
  add("a").taints = {{"gpu", "yes", "NoSchedule"}};
  snapshot_.shape.tolerations = {{"gpu", "Exists", "", ""}};
  EXPECT_EQ(run(1).nodes.size(), 1u);
}

TEST_F(FitTest, selector_and_affinity_must_hold) {
  add("a").metadata.labels = {{"zone", "1"}, {"gpus", "8"}};
  add("b").metadata.labels = {{"zone", "2"}, {"gpus", "4"}};
  snapshot_.shape.node_selector = {{"zone", "1"}};
  EXPECT_EQ(run(1).nodes, std::vector<std::string>{"a"});
  snapshot_.shape.node_selector.clear();
  snapshot_.shape.affinity = {{{"gpus", "Lt", {"6"}}}, {{"zone", "In", {"9"}}}};
  EXPECT_EQ(run(1).nodes, std::vector<std::string>{"b"});
}

TEST_F(FitTest, serials_reserved_but_not_created_take_their_room) {
  add("a", 16);
  job_->status.pods = {{Serial(0), Slot(0), "a"}};
  EXPECT_EQ(run(1).nodes.size(), 1u);
  EXPECT_TRUE(run(2).nodes.empty());
}

TEST_F(FitTest, silent_nodes_take_no_pods) {
  add("a");
  snapshot_.silent_nodes = {{"a", Instant(seconds(0))}};
  EXPECT_TRUE(run(1).nodes.empty());
}

}  // namespace
}  // namespace pitcrew::control
