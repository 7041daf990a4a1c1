#include "agent/act/take_back.hpp"

#include <gtest/gtest.h>

#include "lib/api/health_names.hpp"
#include "lib/base/json.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"

namespace pitcrew::agent {
namespace {

namespace names = api::health;
using kube::Verb;
const ResourceType kDaemonSet{"apps", "v1", "DaemonSet", "daemonsets", true};

class TakeBackTest : public testing::Test {
 protected:
  TakeBackTest() : server_(loop_, {}), transport_(loop_, server_) {
    server_.register_type(kDaemonSet, {});
    server_.track_managers(kube::Node::type());
  }

  void create(const ResourceType& type, Json object, const std::string& ns = "") {
    kube::Request request{.verb = Verb::kCreate, .type = type, .key = {ns, ""}};
    request.body = kube::Payload::of(std::move(object));
    ASSERT_EQ(server_.handle(request).status, 201);
  }
  void patch(const std::string& manager, const std::string& node, Json body) {
    kube::Request request{.verb = Verb::kPatch, .type = kube::Node::type(), .key = {"", node}};
    request.query.emplace_back("fieldManager", manager);
    request.body = kube::Payload::of(std::move(body));
    ASSERT_EQ(server_.handle(request).status, 200);
  }
  // A node that the agent has marked: as after a fault where `sick`.
  void node(const std::string& name, bool sick) {
    create(kube::Node::type(),
           {{"metadata", {{"name", name}, {"labels", {{"zone", "b"}}}}},
            {"spec", {{"taints", Json::array({{{"key", "other"}, {"effect", "NoExecute"}}})}}},
            {"status",
             {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}},
                                          {{"type", names::kCondition}, {"status", sick ? "False" : "True"}}})}}}});
    if (!sick) return;
    patch(names::kFieldManager, name,
          {{"metadata",
            {{"labels", {{names::kUnhealthy, "xid-79"}}},
             {"annotations", {{names::kCordoned, "2026-01-01T00:00:00.000Z xid-79"}}}}},
           {"spec",
            {{"unschedulable", true},
             {"taints", Json::array({{{"key", "other"}, {"effect", "NoExecute"}},
                                     {{"key", names::kUnhealthy}, {"effect", "NoSchedule"}}})}}}});
  }
  Json get(const std::string& name) {
    Json json = **server_.find(kube::Node::type(), {"", name}).json();
    for (const char* key : {"managedFields", "uid", "resourceVersion", "creationTimestamp", "generation", "name"}) {
      json["metadata"].erase(key);
    }
    return json;
  }
  Result<TakenBack> run(TakeBackSettings settings = {}, Duration limit = minutes(5)) {
    std::optional<Result<TakenBack>> result;
    TakeBack take_back(loop_, transport_, 1, std::move(settings), Logger(),
                       [&](Result<TakenBack> told) { result = std::move(told); });
    take_back.start();
    const Instant end = loop_.now() + limit;
    while (!result && loop_.now() < end) loop_.run_for(milliseconds(100));
    return result ? *result : Result<TakenBack>(Error(Code::kDeadlineExceeded, "it has not ended"));
  }

  VirtualLoop loop_;
  local::ApiServer server_;
  local::MemoryTransport transport_;
};

TEST_F(TakeBackTest, nodes_are_as_if_there_had_never_been_an_agent) {
  node("sick", true);
  node("well", false);
  create(kube::Node::type(), {{"metadata", {{"name", "strange"}}}});
  const uint64_t strange = server_.writes(kube::Node::type());
  const auto result = run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->nodes, 3u);
  EXPECT_EQ(result->changed, 2u);
  EXPECT_TRUE(result->failed.empty() && result->kept.empty() && result->held.empty());
  for (const char* name : {"sick", "well"}) {
    const Json json = get(name);
    EXPECT_EQ(json["metadata"]["labels"], Json({{"zone", "b"}})) << name;
    EXPECT_FALSE(json["metadata"].value("annotations", Json::object()).contains(names::kCordoned)) << name;
    EXPECT_EQ(json["spec"], Json({{"taints", Json::array({{{"key", "other"}, {"effect", "NoExecute"}}})}})) << name;
    EXPECT_EQ(json["status"]["conditions"], Json::array({{{"type", "Ready"}, {"status", "True"}}})) << name;
  }
  // Two for the sick node, one for the well one, none for the one without anything of ours.
  EXPECT_EQ(server_.writes(kube::Node::type()) - strange, 3u);
}

TEST_F(TakeBackTest, a_cordon_that_somebody_has_made_theirs_stays) {
  node("sick", true);
  patch("kubectl-cordon", "sick", {{"spec", {{"unschedulable", nullptr}}}});
  patch("kubectl-cordon", "sick", {{"spec", {{"unschedulable", true}}}});
  const auto result = run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->kept, std::vector<std::string>{"sick"});
  EXPECT_EQ(get("sick")["spec"]["unschedulable"], true);
  EXPECT_EQ(get("sick")["spec"]["taints"].size(), 1u);
}

TEST_F(TakeBackTest, a_node_that_people_hold_is_left_as_it_is) {
  node("sick", true);
  patch("kubectl", "sick", {{"metadata", {{"annotations", {{names::kHold, "true"}}}}}});
  const Json before = get("sick");
  const auto result = run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->held, std::vector<std::string>{"sick"});
  EXPECT_EQ(get("sick"), before);
}

TEST_F(TakeBackTest, agents_end_first) {
  node("sick", true);
  create(kDaemonSet, {{"metadata", {{"name", "pitcrew-agent"}, {"namespace", "ns"}}}}, "ns");
  create(kube::Pod::type(),
         {{"metadata", {{"name", "agent-1"}, {"namespace", "ns"}, {"labels", {{"app", "agent"}}}}},
          {"spec", {{"containers", Json::array()}}}},
         "ns");
  TakeBackSettings settings{.ns = "ns", .daemon_set = "pitcrew-agent", .pods = "app=agent"};
  settings.pods_within = seconds(20);
  const Instant begin = loop_.now();
  const auto result = run(settings);
  ASSERT_TRUE(result) << result.error().message;
  // The pod never goes, as on a lost node: it is waited for, then the rest is done all the same.
  EXPECT_GE(loop_.now() - begin, seconds(20));
  EXPECT_LE(loop_.now() - begin, seconds(25));
  EXPECT_TRUE(server_.find(kDaemonSet, {"ns", "pitcrew-agent"}).empty());
  EXPECT_EQ(get("sick")["spec"]["taints"].size(), 1u);
}

TEST_F(TakeBackTest, a_node_that_is_written_meanwhile_is_read_again) {
  node("sick", true);
  // A kubelet that writes between the read and the patch, twice.
  int meddled = 0;
  transport_.set_faults(
      [&](const kube::Request& request) {
        if (request.verb == Verb::kPatch && meddled < 2) {
          ++meddled;
          patch("kubelet", "sick", {{"metadata", {{"labels", {{"beat", std::to_string(meddled)}}}}}});
        }
        return local::RequestFault{};
      },
      {});
  const auto result = run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_TRUE(result->failed.empty());
  EXPECT_EQ(get("sick")["metadata"]["labels"], Json({{"zone", "b"}, {"beat", "2"}}));
}

TEST_F(TakeBackTest, a_node_that_can_not_be_written_is_named_and_the_others_are_done) {
  node("a", true);
  node("b", true);
  transport_.set_faults(
      [&](const kube::Request& request) {
        local::RequestFault fault;
        if (request.verb == Verb::kPatch && request.key.name == "a") {
          fault.before = Error(Code::kForbidden, "forbidden");
        }
        return fault;
      },
      {});
  TakeBackSettings settings;
  settings.attempts = 2;
  const auto result = run(settings, hours(1));
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->failed.size(), 1u);
  EXPECT_EQ(result->failed[0].substr(0, 3), "a: ");
  EXPECT_EQ(get("b")["spec"]["taints"].size(), 1u);
}

}  // namespace
}  // namespace pitcrew::agent
