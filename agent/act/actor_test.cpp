#include "agent/act/actor.hpp"

#include <gtest/gtest.h>

#include "lib/api/health_names.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"

namespace pitcrew::agent {
namespace {

namespace names = api::health;
using kube::Verb;

Verdict fault(const std::string& rule, bool certain, Instant since, const std::string& device = "GPU-3") {
  Verdict verdict;
  verdict.rule = rule;
  verdict.device = device;
  verdict.severity = api::HealthSeverity::kFault;
  verdict.certain = certain;
  verdict.action = api::HealthAction::kReplace;
  verdict.message = "it is bad";
  verdict.since = verdict.last = since;
  return verdict;
}

// A cluster of nodes with an agent's actor on some of them, in virtual time.
class ActorTest : public testing::Test {
 protected:
  struct Agent {
    Agent(ActorTest& test, const std::string& node) : node(node), transport(test.loop_, test.server_), test(test) {
      transport.set_faults(
          [this](const kube::Request& request) {
            requests.push_back(kube::describe(request));
            local::RequestFault fault = faults ? faults(request) : local::RequestFault{};
            fault.request_delay += milliseconds(5);
            fault.reply_delay += milliseconds(5);
            return fault;
          },
          {});
      start();
    }
    void start() {
      ActorSettings settings;
      settings.node = node;
      settings.daemon_set_ns = "pitcrew-system";
      settings.daemon_set = "pitcrew-agent";
      settings.act = act;
      settings.budget = api::CordonBudgetSpec{.max_nodes = 5};
      ActorHooks hooks;
      hooks.cordoned = [this](const Verdict&, Duration after) { cordoned_after.push_back(after); };
      actor.emplace(test.loop_, transport, ++test.seed_, settings, hooks, Logger());
      actor->start();
      actor->found(findings);
    }
    // The process dies with what it has under way, and another one comes.
    void restart() {
      actor.reset();
      start();
    }
    void raise(const Verdict& verdict) {
      findings.verdicts.push_back(verdict);
      findings.history.push_back({verdict.since, verdict.rule, verdict.device, api::HealthChange::kRaised, "bad"});
      actor->found(findings);
    }
    void clear() {
      for (const Verdict& verdict : findings.verdicts) {
        findings.history.push_back(
            {test.loop_.now(), verdict.rule, verdict.device, api::HealthChange::kCleared, "not seen again"});
      }
      findings.verdicts.clear();
      actor->found(findings);
    }
    std::string node;
    local::MemoryTransport transport;
    ActorTest& test;
    std::function<local::RequestFault(const kube::Request&)> faults;
    std::vector<std::string> requests;
    Findings findings;
    ActSettings act;
    std::vector<Duration> cordoned_after;
    std::optional<Actor> actor;
  };

  ActorTest() : server_(loop_, {}) {
    server_.register_type(api::NodeHealth::type(), {});
    server_.register_type(api::CordonBudget::type(), {});
    server_.register_type({"apps", "v1", "DaemonSet", "daemonsets", true}, {.status_subresource = false});
    server_.track_managers(kube::Node::type());
    create({"apps", "v1", "DaemonSet", "daemonsets", true},
           {{"metadata", {{"name", "pitcrew-agent"}, {"namespace", "pitcrew-system"}}},
            {"status", {{"desiredNumberScheduled", 10}}}});
    api::CordonBudget budget;
    budget.metadata.name = api::CordonBudget::kName;
    create(api::CordonBudget::type(), budget.encode());
  }

  void create(const ResourceType& type, Json object) {
    kube::Request request{.verb = Verb::kCreate, .type = type};
    kube::fields::read(object["metadata"], "namespace", request.key.ns);
    request.body = kube::Payload::of(std::move(object));
    ASSERT_EQ(server_.handle(request).status, 201);
  }
  void patch_status(const ResourceType& type, const ObjectKey& key, Json status) {
    kube::Request request{.verb = Verb::kPatch, .type = type, .key = key};
    request.body = kube::Payload::of({{"status", std::move(status)}});
    ASSERT_LT(server_.handle(request).status, 300);
  }
  std::unique_ptr<Agent> agent(const std::string& node, bool settled = true) {
    create(kube::Node::type(),
           {{"metadata", {{"name", node}}},
            {"spec",
             {{"providerID", "aws:///us-east-2b/i-" + node},
              {"taints",
               Json::array({{{"key", "other"}, {"effect", "NoExecute"}, {"timeAdded", "2026-01-01T00:00:00Z"}}})}}},
            {"status", {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}})}}}});
    auto made = std::make_unique<Agent>(*this, node);
    made->findings.settled = settled;
    made->findings.boot_id = "b1";
    made->actor->found(made->findings);
    return made;
  }
  Json get(const ResourceType& type, const std::string& name) {
    const auto found = server_.find(type, {"", name});
    return found.empty() ? Json() : **found.json();
  }
  Json node(const std::string& name) { return get(kube::Node::type(), name); }
  Json health(const std::string& node) { return get(api::NodeHealth::type(), "i-" + node); }
  Json budget() { return get(api::CordonBudget::type(), "default"); }
  // "cordoned tainted labelled noted False", what of it is so.
  std::string state(const std::string& name) {
    const Json json = node(name);
    std::string text;
    const auto add = [&](bool is, const std::string& word) { text += is ? (text.empty() ? "" : " ") + word : ""; };
    const Json spec = json.value("spec", Json::object()), meta = json["metadata"];
    add(spec.value("unschedulable", false), "cordoned");
    bool tainted = false;
    for (const Json& taint : spec.value("taints", Json::array())) tainted |= taint["key"] == names::kUnhealthy;
    add(tainted, "tainted");
    add(meta.value("labels", Json::object()).contains(names::kUnhealthy), "labelled");
    add(meta.value("annotations", Json::object()).contains(names::kCordoned), "noted");
    for (const Json& condition : json["status"].value("conditions", Json::array())) {
      if (condition["type"] == names::kCondition) add(true, condition["status"]);
    }
    return text;
  }
  std::multiset<std::string> events() {
    std::multiset<std::string> reasons;
    server_.for_each(kube::Event::type(),
                     [&](const kube::Payload& event) { reasons.insert((**event.json())["reason"]); });
    return reasons;
  }
  void patch(const std::string& manager, const std::string& name, Json body) {
    kube::Request request{.verb = Verb::kPatch, .type = kube::Node::type(), .key = {"", name}};
    request.query.emplace_back("fieldManager", manager);
    request.body = kube::Payload::of(std::move(body));
    ASSERT_EQ(server_.handle(request).status, 200);
  }

  VirtualLoop loop_;
  local::ApiServer server_;
  uint64_t seed_ = 0;
};

constexpr char kBad[] = "cordoned tainted labelled noted False";

TEST_F(ActorTest, a_healthy_node_costs_one_watch_and_a_write_in_five_minutes) {
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  EXPECT_EQ(state("a"), "True");
  EXPECT_EQ(health("a")["status"]["healthy"], true);
  const uint64_t writes = server_.writes();
  const uint64_t node_writes = server_.writes(kube::Node::type());
  loop_.run_for(hours(1));
  EXPECT_EQ(server_.writes(kube::Node::type()) - node_writes, 12u);
  EXPECT_EQ(server_.writes() - writes, 12u);
  EXPECT_EQ(server_.watches(), 1u);
}

TEST_F(ActorTest, what_was_judged_before_is_read_before_anything_is_found) {
  create(kube::Node::type(), {{"metadata", {{"name", "n1"}}}, {"spec", {{"providerID", "aws:///us-east-2b/i-n1"}}}});
  local::MemoryTransport transport(loop_, server_);
  int read = 0;
  ActorHooks hooks;
  hooks.health = [&read](const api::NodeHealth* before) { read += before == nullptr ? 1 : 100; };
  ActorSettings settings;
  settings.node = "n1";
  Actor actor(loop_, transport, 1, settings, hooks, Logger());
  actor.start();
  loop_.run_for(minutes(1));
  EXPECT_EQ(read, 1);
}

TEST_F(ActorTest, a_certain_fault_cordons_within_a_tenth_of_a_second_and_is_taken_back) {
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  a->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(milliseconds(100));
  EXPECT_EQ(state("a").substr(0, 32), "cordoned tainted labelled noted ");
  // One read and one write, 10 ms each: nothing waits for a poll.
  ASSERT_EQ(a->cordoned_after.size(), 1u);
  EXPECT_LE(a->cordoned_after[0], milliseconds(25));
  loop_.run_for(seconds(2));
  EXPECT_EQ(state("a"), kBad);
  EXPECT_EQ(health("a")["status"]["verdicts"][0]["rule"], "xid-79");
  EXPECT_EQ(health("a")["status"]["needs"], "Replace");
  EXPECT_EQ(events(), (std::multiset<std::string>{"Cordoned", "HealthFinding"}));
  EXPECT_EQ(budget()["status"]["cordons"]["a"]["certain"], true);
  EXPECT_EQ(node("a")["spec"]["taints"][0]["timeAdded"], "2026-01-01T00:00:00Z");

  loop_.run_for(minutes(3));
  a->clear();
  loop_.run_for(seconds(2));
  EXPECT_EQ(state("a"), "True");
  EXPECT_EQ(node("a")["spec"]["taints"].size(), 1u);
  EXPECT_FALSE(health("a")["status"].contains("verdicts"));
  EXPECT_EQ(health("a")["status"]["history"].size(), 2u);
  EXPECT_EQ(events(), (std::multiset<std::string>{"Cordoned", "HealthCleared", "HealthFinding", "Uncordoned"}));
}

TEST_F(ActorTest, another_fault_takes_a_token_and_cordons_within_a_second) {
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  a->raise(fault("gpu-missing", false, loop_.now()));
  loop_.run_for(seconds(1));
  EXPECT_EQ(state("a"), kBad);
  EXPECT_LE(a->cordoned_after.at(0), milliseconds(100));
  EXPECT_EQ(budget()["status"]["cordons"]["a"]["certain"], false);
  EXPECT_EQ(budget()["status"]["cordons"]["a"]["providerID"], "aws:///us-east-2b/i-a");
}

TEST_F(ActorTest, a_budget_that_is_absent_is_made) {
  kube::Request request{.verb = Verb::kDelete, .type = api::CordonBudget::type(), .key = {"", "default"}};
  ASSERT_EQ(server_.handle(request).status, 200);
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  a->raise(fault("xid-95", false, loop_.now()));
  loop_.run_for(seconds(1));
  EXPECT_EQ(state("a"), kBad);
  EXPECT_EQ(budget()["spec"]["maxNodes"], 5);
}

TEST_F(ActorTest, of_a_fleet_with_the_same_uncertain_fault_three_are_cordoned_and_of_a_certain_one_all) {
  std::vector<std::unique_ptr<Agent>> agents;
  for (int i = 0; i < 10; ++i) agents.push_back(agent("n" + std::to_string(i)));
  loop_.run_for(seconds(10));
  for (const auto& one : agents) one->raise(fault("xid-95", false, loop_.now()));
  loop_.run_for(seconds(20));
  const auto cordoned = [&] {
    int count = 0;
    for (const auto& one : agents) count += state(one->node) == kBad;
    return count;
  };
  EXPECT_EQ(cordoned(), 3);
  EXPECT_EQ(budget()["status"]["cordons"].size(), 3u);
  for (const auto& one : agents) EXPECT_NE(state(one->node).find("labelled"), std::string::npos);
  EXPECT_EQ(events().count("CordonRefused"), 7u);
  for (const auto& one : agents) one->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(2));
  EXPECT_EQ(cordoned(), 10);
  // They count too: within their five minutes nobody else gets a token.
  EXPECT_EQ(budget()["status"]["cordons"].size(), 10u);
}

// A hundred nodes take the same bad driver within a minute. A fifth of them may be cordoned within five minutes, and no
// more; later nobody is refused for what is long past, and all comes back when the fault goes.
TEST_F(ActorTest, of_a_hundred_nodes_with_one_driver_the_breaker_keeps_four_fifths_in_service) {
  constexpr int kNodes = 100;
  patch_status({"apps", "v1", "DaemonSet", "daemonsets", true}, {"pitcrew-system", "pitcrew-agent"},
               {{"desiredNumberScheduled", kNodes}});
  std::vector<std::unique_ptr<Agent>> agents;
  for (int i = 0; i < kNodes; ++i) agents.push_back(agent("n" + std::to_string(i)));
  loop_.run_for(seconds(10));
  Random random(11);
  for (const auto& one : agents) {
    loop_.run_for(milliseconds(static_cast<int64_t>(random.below(1200))));
    one->raise(fault("gpu-missing", false, loop_.now()));
  }
  const auto count = [&](const std::string& word) {
    return std::count_if(agents.begin(), agents.end(),
                         [&](const auto& one) { return state(one->node).find(word) != std::string::npos; });
  };
  for (int i = 0; i < 100; ++i) {
    loop_.run_for(seconds(1));
    ASSERT_LE(count("cordoned"), kNodes / 5) << "after " << i << " s";
  }
  EXPECT_EQ(count("cordoned"), kNodes / 5);
  EXPECT_EQ(count("tainted"), kNodes / 5) << "who got no token isn't quarantined, so no job leaves it";
  EXPECT_EQ(count("labelled"), kNodes) << "all say what they have";
  EXPECT_EQ(events().count("CordonRefused"), static_cast<size_t>(kNodes * 4 / 5))
      << "each says once that it was refused";

  for (const auto& one : agents) one->clear();
  loop_.run_for(seconds(30));
  EXPECT_EQ(count("cordoned"), 0);
  EXPECT_EQ(count("labelled"), 0);
}

TEST_F(ActorTest, of_two_that_want_the_last_token_one_gets_it) {
  const auto a = agent("a"), b = agent("b"), c = agent("c"), d = agent("d");
  loop_.run_for(seconds(10));
  c->raise(fault("xid-79", true, loop_.now()));
  d->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(5));
  a->raise(fault("xid-95", false, loop_.now()));
  b->raise(fault("xid-95", false, loop_.now()));
  loop_.run_for(seconds(5));
  EXPECT_EQ((state("a") == kBad) + (state("b") == kBad), 1);
}

TEST_F(ActorTest, with_the_api_away_nothing_is_cordoned_and_all_is_written_after) {
  const auto a = agent("a"), b = agent("b");
  loop_.run_for(seconds(10));
  a->transport.set_connected(false);
  b->transport.set_connected(false);
  a->raise(fault("xid-79", true, loop_.now()));
  b->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(minutes(5));
  EXPECT_EQ(state("a"), "True");
  b->clear();
  a->transport.set_connected(true);
  b->transport.set_connected(true);
  loop_.run_for(minutes(1));
  EXPECT_EQ(state("a"), kBad);
  // What went in between cordons nothing, and is in the history.
  EXPECT_EQ(state("b"), "True");
  EXPECT_EQ(health("b")["status"]["history"].size(), 2u);
}

TEST_F(ActorTest, what_could_not_reach_the_api_server_goes_as_soon_as_one_call_has) {
  for (int i = 0; i < 8; ++i) {
    const std::string name = "n" + std::to_string(i);
    SCOPED_TRACE(name);
    const auto a = agent(name);
    loop_.run_for(seconds(10));
    a->transport.set_connected(false);
    a->raise(fault("xid-79", true, loop_.now()));
    loop_.run_for(minutes(5));
    a->transport.set_connected(true);
    for (int tick = 0; tick < 400 && state(name) == "True"; ++tick) loop_.run_for(milliseconds(100));
    loop_.run_for(seconds(2));
    EXPECT_EQ(state(name), kBad);
    EXPECT_EQ(health(name)["status"].value("verdicts", Json::array()).size(), 1u) << "it waits for its own back-off";
  }
}

TEST_F(ActorTest, killed_at_any_request_the_next_one_comes_to_the_same_result_once) {
  for (size_t kill_at = 1; kill_at <= 14; ++kill_at) {
    for (const bool certain : {true, false}) {
      const std::string name = "n" + std::to_string(kill_at) + (certain ? "c" : "t");
      SCOPED_TRACE(name);
      loop_.run_for(minutes(6));  // the tokens of those before have come back
      const std::multiset<std::string> before = events();
      const auto a = agent(name);
      loop_.run_for(seconds(10));
      const size_t start = a->requests.size();
      a->raise(fault("xid-1", certain, loop_.now()));
      for (int i = 0; i < 400 && a->requests.size() < start + kill_at; ++i) loop_.run_for(milliseconds(1));
      a->restart();
      loop_.run_for(seconds(30));
      EXPECT_EQ(state(name), kBad);
      EXPECT_EQ(health(name)["status"]["verdicts"].size(), 1u);
      EXPECT_EQ(health(name)["status"]["history"].size(), 1u);
      EXPECT_EQ(node(name)["spec"]["taints"].size(), 2u);
      const auto after = events();
      EXPECT_EQ(after.count("Cordoned"), before.count("Cordoned") + 1);
      EXPECT_EQ(after.count("HealthFinding"), before.count("HealthFinding") + 1);
      EXPECT_EQ(budget()["status"]["cordons"][name]["certain"], certain);
      a->clear();
      loop_.run_for(seconds(2));
      EXPECT_EQ(state(name), "True");
    }
  }
}

TEST_F(ActorTest, errors_and_conflicts_delay_and_change_nothing) {
  uint64_t seed = 7;
  for (const int percent : {20, 50}) {
    const std::string name = "n" + std::to_string(percent);
    const auto a = agent(name);
    Random random(++seed);
    a->faults = [&](const kube::Request&) {
      local::RequestFault fault;
      if (!random.chance(percent / 100.0)) return fault;
      switch (random.below(5)) {
        case 0:
          fault.before = Error(Code::kUnavailable, "connection refused");
          break;
        case 1:
          fault.lost_reply = Error(Code::kUnavailable, "connection reset");
          break;
        case 2:
          fault.answer = local::too_many_requests(seconds(1));
          break;
        case 3:
          fault.answer = kube::Response{.status = 500, .body = kube::Payload::text("{}")};
          break;
        default:
          fault.reply_delay = seconds(3);
      }
      return fault;
    };
    loop_.run_for(minutes(2));
    a->raise(fault("xid-79", true, loop_.now()));
    loop_.run_for(minutes(5));
    EXPECT_EQ(state(name), kBad);
    EXPECT_EQ(health(name)["status"]["verdicts"].size(), 1u);
    a->clear();
    loop_.run_for(minutes(5));
    EXPECT_EQ(state(name), "True");
    EXPECT_EQ(health(name)["status"]["history"].size(), 2u);
  }
}

TEST_F(ActorTest, a_conflict_is_settled_by_reading_again) {
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  int patches = 0;
  a->faults = [&](const kube::Request& request) {
    if (request.verb == Verb::kPatch && request.type == kube::Node::type() && request.subresource.empty() &&
        patches++ < 3) {
      patch("kubelet", "a", {{"metadata", {{"labels", {{"x", std::to_string(patches)}}}}}});
    }
    return local::RequestFault{};
  };
  a->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(1));
  EXPECT_EQ(state("a"), kBad);
  EXPECT_EQ(node("a")["metadata"]["labels"]["x"], "3");
}

TEST_F(ActorTest, a_persons_cordon_stays) {
  const auto a = agent("a"), b = agent("b"), c = agent("c");
  loop_.run_for(seconds(10));
  patch("kubectl-cordon", "a", {{"spec", {{"unschedulable", true}}}});
  for (Agent* one : {a.get(), b.get(), c.get()}) one->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(2));
  EXPECT_EQ(state("a"), "cordoned tainted labelled False");
  // Uncordoned and cordoned again by a person: theirs.
  patch("kubectl-uncordon", "b", {{"spec", {{"unschedulable", nullptr}}}});
  loop_.run_for(minutes(1));
  EXPECT_EQ(state("b"), "tainted labelled noted False");
  patch("kubectl-cordon", "b", {{"spec", {{"unschedulable", true}}}});
  patch("kubectl", "c", {{"metadata", {{"annotations", {{names::kHold, "look at fan 3"}}}}}});
  for (Agent* one : {a.get(), b.get(), c.get()}) one->clear();
  loop_.run_for(minutes(1));
  EXPECT_EQ(state("a"), "cordoned True");
  EXPECT_EQ(state("b"), "cordoned True");
  EXPECT_EQ(events().count("CordonKept"), 1u);
  EXPECT_EQ(state("c"), "cordoned tainted labelled noted True");
  patch("kubectl", "c", {{"metadata", {{"annotations", {{names::kHold, nullptr}}}}}});
  loop_.run_for(seconds(1));
  EXPECT_EQ(state("c"), "True");
}

TEST_F(ActorTest, shadow_mode_says_all_and_keeps_nothing_away) {
  const auto a = agent("a");
  a->act.shadow = true;
  a->restart();
  loop_.run_for(seconds(10));
  a->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(2));
  EXPECT_EQ(state("a"), "labelled False");
  EXPECT_EQ(health("a")["status"]["healthy"], false);
}

TEST_F(ActorTest, what_the_cluster_refuses_holds_nothing_else_up) {
  const auto a = agent("a");
  a->faults = [](const kube::Request& request) {
    local::RequestFault fault;
    const bool refused =
        request.verb != Verb::kWatch && (request.subresource == "status") && request.type == kube::Node::type();
    if (refused || request.type == kube::Event::type()) {
      fault.answer = kube::Response{.status = 403, .body = kube::Payload::text("{}")};
    }
    return fault;
  };
  loop_.run_for(seconds(10));
  a->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(2));
  EXPECT_EQ(state("a"), "cordoned tainted labelled noted");
  EXPECT_EQ(health("a")["status"]["verdicts"].size(), 1u);
  EXPECT_NE(a->actor->not_ready().find("condition"), std::string::npos);
}

TEST_F(ActorTest, the_operators_checks_and_other_peoples_annotations_stay) {
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  kube::Request request{
      .verb = Verb::kPatch, .type = api::NodeHealth::type(), .key = {"", "i-a"}, .subresource = "status"};
  request.body = kube::Payload::of({{"status",
                                     {{"checks", Json::array({{{"id", "c1"},
                                                               {"test", "memory"},
                                                               {"passed", true},
                                                               {"message", ""},
                                                               {"time", "2026-01-01T00:00:00Z"}}})}}}});
  ASSERT_EQ(server_.handle(request).status, 200);
  a->raise(fault("xid-79", true, loop_.now()));
  loop_.run_for(seconds(2));
  a->clear();
  loop_.run_for(seconds(2));
  EXPECT_EQ(health("a")["status"]["checks"].size(), 1u);
  EXPECT_EQ(health("a")["status"]["healthy"], true);
}

TEST_F(ActorTest, finish_writes_what_is_due_and_then_tells) {
  const auto a = agent("a");
  loop_.run_for(seconds(10));
  a->raise(fault("xid-79", true, loop_.now()));
  bool finished = false;
  a->actor->finish(seconds(5), [&] { finished = true; });
  loop_.run_for(seconds(1));
  EXPECT_TRUE(finished);
  EXPECT_EQ(state("a"), kBad);
  a->transport.set_connected(false);
  a->clear();
  finished = false;
  a->actor->finish(seconds(5), [&] { finished = true; });
  loop_.run_for(seconds(4));
  EXPECT_FALSE(finished);
  loop_.run_for(seconds(2));
  EXPECT_TRUE(finished);
}

}  // namespace
}  // namespace pitcrew::agent
