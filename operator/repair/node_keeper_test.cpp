#include "operator/repair/node_keeper.hpp"

#include <gtest/gtest.h>

#include "lib/api/check_report.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/health_names.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "operator/repair/condition.hpp"

namespace pitcrew::control {
namespace {

using kube::Verb;

const ResourceType kNodeClaims{"karpenter.sh", "v1", "NodeClaim", "nodeclaims", false};
const ResourceType kEvents{"events.k8s.io", "v1", "Event", "events", true};

// One node that its agent has quarantined and that needs to be replaced.
class NodeKeeperTest : public testing::Test {
 protected:
  NodeKeeperTest() : server_(loop_, {}), transport_(loop_, server_) {
    for (const ResourceType& type : {api::NodeHealth::type(), api::CordonBudget::type()})
      server_.register_type(type, {});
    server_.register_type(kNodeClaims, {.status_subresource = false});
    server_.track_managers(kube::Node::type());
    create(kube::Node::type(),
           {{"metadata", {{"name", "n1"}}},
            {"spec",
             {{"providerID", "aws:///us-east-2b/i-0abc"},
              {"taints", Json::array({{{"key", api::health::kUnhealthy}, {"effect", "NoSchedule"}}})}}},
            {"status", {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}})}}}});
    api::NodeHealth health;
    health.metadata.name = "i-0abc";
    health.spec = {"aws:///us-east-2b/i-0abc", node()["metadata"]["uid"].get<std::string>(), "n1"};
    create(api::NodeHealth::type(), health.encode());
    health.status.healthy = false;
    health.status.needs = api::HealthAction::kReplace;
    api::HealthVerdict verdict;
    verdict.rule = "xid-79";
    verdict.severity = api::HealthSeverity::kFault;
    verdict.action = api::HealthAction::kReplace;
    verdict.message = "gone";
    verdict.since = verdict.last = loop_.now();
    health.status.verdicts = {verdict};
    patch(api::NodeHealth::type(), "i-0abc", {{"status", health.encode()["status"]}}, "status");
  }

  void start(RepairMode mode) {
    NodeKeeperSettings settings;
    settings.repair = mode;
    settings.webhook = "https://repairs.example.com/";
    settings.check = {"check:1", "pitcrew-system", minutes(30)};
    settings.identity = "operator-a";
    NodeKeeperWorld world;
    world.for_each = [this](const auto& function) {
      NodeCare care;
      care.node = *server_.find(kube::Node::type(), {"", "n1"}).as<kube::Node>();
      care.health = *server_.find(api::NodeHealth::type(), {"", "i-0abc"}).as<api::NodeHealth>();
      care.used = used_;
      const auto pod = server_.find(kube::Pod::type(), {"pitcrew-system", "check-i-0abc"});
      function(care, {!pod.empty(), !pod.empty() && (*pod.as<kube::Pod>())->ended()});
    };
    world.may_act = [] { return true; };
    world.post = [this](const std::string&, const std::string& body, std::function<void(Status)> done) {
      posts_.push_back(body);
      loop_.post([this, done] { done(post_fails_ ? Status(Error(Code::kUnavailable, "no answer")) : Status()); });
    };
    keeper_.emplace(loop_, transport_, 1, settings, world, Logger());
    keeper_->start();
    run(seconds(1));
  }
  void run(Duration time) { loop_.run_for(time); }

  void create(const ResourceType& type, Json object, const std::string& ns = "") {
    kube::Request request{.verb = Verb::kCreate, .type = type, .key = {ns, ""}};
    request.body = kube::Payload::of(std::move(object));
    ASSERT_EQ(server_.handle(request).status, 201);
  }
  void patch(const ResourceType& type, const std::string& name, Json body, const std::string& subresource = "",
             const std::string& ns = "") {
    kube::Request request{.verb = Verb::kPatch, .type = type, .key = {ns, name}, .subresource = subresource};
    request.patch = kube::PatchKind::kMerge;
    request.query = {{"fieldManager", "test"}};
    request.body = kube::Payload::of(std::move(body));
    ASSERT_LT(server_.handle(request).status, 300);
  }
  // What EKS' node monitoring agent does every 15 s: its own copy of the condition.
  void monitoring_agent_writes() {
    Json object{{"apiVersion", "v1"},
                {"kind", "Node"},
                {"metadata", {{"name", "n1"}}},
                {"status",
                 {{"conditions",
                   Json::array({{{"type", kAcceleratedHardwareReady}, {"status", "True"}, {"reason", "NoIssues"}}})}}}};
    kube::Client client(loop_, transport_, 7);
    Status written = Error(Code::kUnavailable, "no answer");
    client.apply_raw(kube::Node::type(), std::move(object), {"eks-node-monitoring-agent", true, "status"},
                     [&](Result<kube::Payload> answer) { written = answer ? Status() : Status(answer.error()); });
    run(milliseconds(100));
    ASSERT_TRUE(written) << written.error().message;
  }

  Json get(const ResourceType& type, const ObjectKey& key) {
    const auto found = server_.find(type, key);
    return found.empty() ? Json() : **found.json();
  }
  Json node() { return get(kube::Node::type(), {"", "n1"}); }
  Json condition() {
    const Json object = node();
    for (const Json& one : object["status"]["conditions"]) {
      if (one["type"] == kAcceleratedHardwareReady) return one;
    }
    return {};
  }
  std::vector<std::string> events(const std::string& reason) {
    std::vector<std::string> notes;
    server_.for_each(kEvents, [&](const kube::Payload& payload) {
      const Json& event = **payload.json();
      if (event.value("reason", "") == reason) notes.push_back(event.value("note", ""));
    });
    return notes;
  }
  void well() {
    patch(api::NodeHealth::type(), "i-0abc",
          {{"status", {{"healthy", true}, {"needs", "None"}, {"verdicts", nullptr}}}}, "status");
    patch(kube::Node::type(), "n1", {{"spec", {{"taints", nullptr}}}});
  }

  VirtualLoop loop_;
  local::ApiServer server_;
  local::MemoryTransport transport_;
  bool used_ = false;
  bool post_fails_ = false;
  std::vector<std::string> posts_;
  std::optional<NodeKeeper> keeper_;
};

TEST_F(NodeKeeperTest, mode_none_writes_nothing) {
  const uint64_t before = server_.writes();
  start(RepairMode::kNone);
  run(minutes(10));
  EXPECT_EQ(server_.writes(), before);
}

TEST_F(NodeKeeperTest, condition_is_written_once_jobs_have_left_and_taken_back) {
  used_ = true;
  start(RepairMode::kCondition);
  run(minutes(1));
  EXPECT_TRUE(condition().is_null()) << "a job is still there";
  used_ = false;
  run(seconds(15));
  EXPECT_EQ(condition()["status"], "False");
  EXPECT_EQ(condition()["reason"], "Xid79");
  const uint64_t writes = server_.writes();
  run(minutes(10));
  EXPECT_EQ(server_.writes(), writes) << "it is said once";
  EXPECT_EQ(events("RepairOrdered").size(), 1u);
  well();
  run(seconds(15));
  EXPECT_EQ(condition()["status"], "True");
}

TEST_F(NodeKeeperTest, condition_is_refused_where_another_writes_it) {
  monitoring_agent_writes();
  start(RepairMode::kCondition);
  for (int i = 0; i < 20; ++i) {
    monitoring_agent_writes();
    run(seconds(15));
    EXPECT_EQ(condition()["status"], "True");
  }
  const auto refusals = events("RepairRefused");
  ASSERT_EQ(refusals.size(), 1u) << "people are told once";
  EXPECT_NE(refusals[0].find("eks-node-monitoring-agent writes AcceleratedHardwareReady on this node too"),
            std::string::npos)
      << refusals[0];
}

TEST_F(NodeKeeperTest, condition_of_a_writer_that_comes_later_is_left_to_it) {
  start(RepairMode::kCondition);
  EXPECT_EQ(condition()["status"], "False");
  monitoring_agent_writes();
  for (int i = 0; i < 20; ++i) {
    run(seconds(15));
    EXPECT_EQ(condition()["status"], "True");
  }
  EXPECT_EQ(events("RepairRefused").size(), 1u);
}

TEST_F(NodeKeeperTest, node_claim_is_deleted_after_the_job_has_left) {
  for (const char* instance : {"i-0abc", "i-0other"}) {
    create(kNodeClaims, {{"metadata", {{"name", std::string("claim-") + instance}}},
                         {"status", {{"providerID", std::string("aws:///us-east-2b/") + instance}}}});
  }
  used_ = true;
  start(RepairMode::kNodeClaim);
  run(minutes(1));
  EXPECT_EQ(server_.count(kNodeClaims), 2u);
  used_ = false;
  run(seconds(15));
  EXPECT_EQ(server_.count(kNodeClaims), 1u);
  EXPECT_FALSE(get(kNodeClaims, {"", "claim-i-0other"}).is_null());
}

TEST_F(NodeKeeperTest, node_without_a_claim_is_not_karpenters) {
  start(RepairMode::kNodeClaim);
  run(minutes(1));
  EXPECT_EQ(events("RepairRefused").size(), 1u);
}

TEST_F(NodeKeeperTest, label_says_what_hyperpod_has_to_do) {
  start(RepairMode::kLabel);
  EXPECT_EQ(node()["metadata"]["labels"][api::health::kHyperPodStatus], "UnschedulablePendingReplacement");
}

TEST_F(NodeKeeperTest, webhook_is_called_until_it_answers_and_then_no_more) {
  post_fails_ = true;
  start(RepairMode::kWebhook);
  run(seconds(25));
  EXPECT_GE(posts_.size(), 2u);
  post_fails_ = false;
  run(seconds(15));
  const size_t posts = posts_.size();
  run(minutes(5));
  EXPECT_EQ(posts_.size(), posts);
  const Json body = Json::parse(posts_.back());
  EXPECT_EQ(body["action"], "Replace");
  EXPECT_EQ(body["node"], "n1");
  EXPECT_EQ(body["providerID"], "aws:///us-east-2b/i-0abc");
}

TEST_F(NodeKeeperTest, deep_check_runs_in_a_pod_and_its_answer_is_in_the_status) {
  patch(api::NodeHealth::type(), "i-0abc", {{"metadata", {{"annotations", {{kRequestCheck, "c-7"}}}}}});
  start(RepairMode::kNone);
  run(seconds(15));
  const ObjectKey key{"pitcrew-system", "check-i-0abc"};
  ASSERT_FALSE(get(kube::Pod::type(), key).is_null());
  api::CheckReport report;
  report.id = "c-7";
  report.node = "n1";
  report.time = loop_.now();
  report.tests = {{"memory", "GPU-1", api::CheckOutcome::kPassed, "", 1, {}}};
  const Json ended{{"name", "check"},
                   {"state", {{"terminated", {{"exitCode", 0}, {"message", report.encode_within(4096)}}}}}};
  patch(kube::Pod::type(), key.name,
        {{"status", {{"phase", "Succeeded"}, {"containerStatuses", Json::array({ended})}}}}, "status", key.ns);
  run(seconds(35));
  const Json checks = get(api::NodeHealth::type(), {"", "i-0abc"})["status"]["checks"];
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_EQ(checks[0]["id"], "c-7");
  EXPECT_EQ(checks[0]["outcome"], "Passed");
  const Json pod = get(kube::Pod::type(), key);
  EXPECT_TRUE(pod.is_null() || pod["metadata"].contains("deletionTimestamp"));
}

TEST_F(NodeKeeperTest, old_entries_of_the_budget_are_taken_out) {
  api::CordonBudget budget;
  budget.metadata.name = api::CordonBudget::kName;
  create(api::CordonBudget::type(), budget.encode());
  budget.cordons["old"] = {"", "u", loop_.now() - minutes(6), "xid-79", true};
  budget.cordons["new"] = {"", "u", loop_.now(), "xid-79", true};
  patch(api::CordonBudget::type(), "default", {{"status", budget.encode()["status"]}}, "status");
  start(RepairMode::kNone);
  const Json cordons = get(api::CordonBudget::type(), {"", "default"})["status"]["cordons"];
  EXPECT_EQ(cordons.size(), 1u);
  EXPECT_TRUE(cordons.contains("new"));
}

}  // namespace
}  // namespace pitcrew::control
