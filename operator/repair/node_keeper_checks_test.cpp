// Deep checks of many nodes at once: how many run, and who waits.
#include <gtest/gtest.h>

#include "lib/api/health_names.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "operator/repair/node_keeper.hpp"

namespace pitcrew::control {
namespace {

using kube::Verb;

const ResourceType kEvents{"events.k8s.io", "v1", "Event", "events", true};
constexpr int kNodes = 6;

// Six nodes that are asked for a check, all at once.
class ChecksOfManyNodes : public testing::Test {
 protected:
  ChecksOfManyNodes() : server_(loop_, {}), transport_(loop_, server_) {
    server_.register_type(api::NodeHealth::type(), {});
    for (int i = 0; i < kNodes; ++i) {
      const std::string node = "n" + std::to_string(i);
      send(Verb::kCreate, kube::Node::type(), {},
           {{"metadata", {{"name", node}}},
            {"status", {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}})}}}});
      api::NodeHealth health;
      health.metadata.name = "i-" + node;
      health.metadata.annotations[kRequestCheck] = "c-1";
      health.spec = {"aws:///us-east-2b/i-" + node, "uid-" + node, node};
      send(Verb::kCreate, api::NodeHealth::type(), {}, health.encode());
    }
    NodeKeeperSettings settings;
    settings.check = {"check:1", "pitcrew-system", minutes(30), true, {2, 0.1}};
    settings.identity = "operator-a";
    NodeKeeperWorld world;
    world.may_act = [] { return true; };
    world.for_each = [this](const auto& function) {
      for (int i = 0; i < kNodes; ++i) {
        const std::string node = "n" + std::to_string(i);
        NodeCare care;
        care.node = *server_.find(kube::Node::type(), {"", node}).as<kube::Node>();
        care.health = *server_.find(api::NodeHealth::type(), {"", "i-" + node}).as<api::NodeHealth>();
        const auto pod = server_.find(kube::Pod::type(), pod_of(i));
        const bool there = !pod.empty() && !cache_is_late_;
        function(care, {there, there && (*pod.as<kube::Pod>())->ended()});
      }
    };
    keeper_.emplace(loop_, transport_, 1, settings, world, Logger());
  }

  static ObjectKey pod_of(int i) { return {"pitcrew-system", "check-i-n" + std::to_string(i)}; }
  void send(Verb verb, const ResourceType& type, const ObjectKey& key, Json body, const std::string& subresource = "") {
    kube::Request request{.verb = verb, .type = type, .key = key, .subresource = subresource};
    request.patch = kube::PatchKind::kMerge;
    request.body = kube::Payload::of(std::move(body));
    ASSERT_LT(server_.handle(request).status, 300);
  }
  // Ends the pods that run; none of them brings a report, which is an answer too.
  void end_pods() {
    for (int i = 0; i < kNodes; ++i) {
      if (!server_.find(kube::Pod::type(), pod_of(i)).empty())
        send(Verb::kPatch, kube::Pod::type(), pod_of(i), {{"status", {{"phase", "Failed"}}}}, "status");
    }
  }
  size_t pods() { return server_.count(kube::Pod::type()); }
  size_t answered() {
    size_t count = 0;
    server_.for_each(api::NodeHealth::type(), [&](const kube::Payload& payload) {
      count += (*payload.as<api::NodeHealth>())->status.checks.size();
    });
    return count;
  }

  VirtualLoop loop_;
  local::ApiServer server_;
  local::MemoryTransport transport_;
  bool cache_is_late_ = false;
  std::optional<NodeKeeper> keeper_;
};

TEST_F(ChecksOfManyNodes, run_two_at_a_time_until_all_have_an_answer) {
  keeper_->start();
  for (int round = 0; round < 30 && answered() < kNodes; ++round) {
    loop_.run_for(seconds(15));
    EXPECT_LE(pods(), 2u);
    end_pods();
  }
  EXPECT_EQ(answered(), size_t{kNodes});
}

TEST_F(ChecksOfManyNodes, are_counted_before_the_cache_shows_their_pods) {
  cache_is_late_ = true;
  keeper_->start();
  loop_.run_for(seconds(25));
  EXPECT_EQ(pods(), 2u);
}

TEST_F(ChecksOfManyNodes, who_waits_is_told_once_and_why) {
  keeper_->start();
  loop_.run_for(minutes(2));
  EXPECT_EQ(pods(), 2u);
  std::set<std::string> nodes;
  size_t events = 0;
  server_.for_each(kEvents, [&](const kube::Payload& payload) {
    const Json& event = **payload.json();
    if (event.value("reason", "") != "CheckWaits") return;
    ++events;
    nodes.insert(event["regarding"]["name"].get<std::string>());
    EXPECT_EQ(event.value("note", ""), "deep check c-1 waits: as many nodes as may be are being checked: 2 at once");
  });
  EXPECT_EQ(nodes, (std::set<std::string>{"n2", "n3", "n4", "n5"}));
  EXPECT_EQ(events, 4u);
}

}  // namespace
}  // namespace pitcrew::control
