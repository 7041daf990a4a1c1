#include "operator/app/program.hpp"

#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "lib/api/node_health.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "lib/net/crypto.hpp"
#include "lib/net/http_client.hpp"
#include "lib/net/websocket_client.hpp"

namespace pitcrew::control {
namespace {

constexpr Duration kPatience = seconds(60);  // of a noisy machine; nothing waits for it when all is well
const ResourceType kSecret{"", "v1", "Secret", "secrets", true};
const ResourceType kService{"", "v1", "Service", "services", true};
const ResourceType kSlice{"discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true};

class ProgramTest : public testing::Test {
 protected:
  struct Replica {
    Replica(ProgramTest& test, const std::string& name, const std::string& ip, uint64_t seed)
        : transport(test.loop_, test.server_) {
      OperatorConfig config;
      config.launcher_image = "launcher";
      config.channel_port = config.metrics_port = config.health_port = 0;
      config.lease_duration = milliseconds(1500);
      config.renew_deadline = seconds(1);
      config.retry_period = milliseconds(100);
      OperatorProgramSettings settings;
      settings.listen_host = "127.0.0.1";
      settings.look_every = milliseconds(50);
      program.emplace(test.loop_, transport, transport, config, OperatorPlace{"system", name, ip}, settings,
                      Random(seed), Logger());
    }
    bool leading() const { return program->running() != nullptr && program->running()->leading(); }
    local::MemoryTransport transport;
    std::optional<OperatorProgram> program;
  };

  ProgramTest() : server_(loop_, {}) {
    server_.register_type(api::TrainingJob::type(), {});
    server_.register_type(api::NodeHealth::type(), {});
    server_.set_admission(kService, [](const Json* old, Json& service) -> Status {
      if (old == nullptr) service["spec"]["clusterIP"] = "10.96.0.7";
      return {};
    });
  }

  std::unique_ptr<Replica> replica(const std::string& name, const std::string& ip, uint64_t seed) {
    auto made = std::make_unique<Replica>(*this, name, ip, seed);
    const Status started = made->program->start();
    EXPECT_TRUE(started.ok()) << started.error().message;
    return made;
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, kPatience); }
  Json stored(const ResourceType& type, const std::string& name) {
    const auto found = server_.find(type, {"system", name});
    return found.empty() ? Json() : **found.json();
  }
  std::string get(const net::Address& address, const std::string& path) {
    std::optional<std::string> answer;
    net::HttpRequest request;
    request.target = path;
    net::HttpClientSettings settings;
    settings.address = address;
    const auto exchange = net::http_request(
        loop_, settings, request, {[&](Result<net::HttpResponse> response) {
          answer = response ? std::to_string(response->status) + " " + response->body : response.error().message;
        }});
    return until([&] { return answer.has_value(); }) ? *answer : "";
  }
  // What a launcher that believes `bundle`, and doesn't say hello, sees at that address: the close's code.
  std::string knock(const net::Address& address, const std::string& bundle) {
    std::string seen;
    net::WebSocketClientSettings settings;
    settings.address = address;
    settings.trust = net::TlsTrust{bundle, kChannelServerName};
    settings.path = api::channel::kPath;
    settings.headers = {{"Authorization", "Bearer nobody"}};
    net::WebSocketClientHandler handler;
    handler.on_open = [&](const net::WebSocketSessionPtr& session) {
      seen = "open";
      session->send("not a hello");
    };
    handler.on_close = [&](const net::WebSocketClose& close) { seen = std::to_string(close.code); };
    const auto client = net::WebSocketClient::connect(loop_, settings, handler);
    until([&] { return !seen.empty() && seen != "open"; });
    return seen;
  }
  std::string text_in(const Json& secret, const char* key) {
    return *net::base64_decode(secret.at("data").at(key).get<std::string>());
  }
  void change(const ResourceType& type, const std::string& name, const std::function<void(Json&)>& edit) {
    kube::Request request;
    request.verb = kube::Verb::kUpdate;
    request.type = type;
    request.key = {"system", name};
    Json object = stored(type, name);
    edit(object);
    request.body = kube::Payload::of(std::move(object));
    ASSERT_EQ(server_.handle(request).status, 200);
  }
  void remove(const ResourceType& type, const std::string& name) {
    kube::Request request;
    request.verb = kube::Verb::kDelete;
    request.type = type;
    request.key = {"system", name};
    ASSERT_EQ(server_.handle(request).status, 200);
  }

  net::AsioLoop loop_;
  local::ApiServer server_;
};

TEST_F(ProgramTest, makes_what_launchers_need_and_leads_them_here) {
  const auto one = replica("one", "10.1.0.1", 1);
  EXPECT_EQ(get(one->program->metrics_address(), "/healthz").substr(0, 3), "200");
  ASSERT_TRUE(until([&] { return one->leading() && !stored(kSlice, "pitcrew-channel-ipv4").is_null(); }));
  const Json slice = stored(kSlice, "pitcrew-channel-ipv4");
  EXPECT_EQ(slice["endpoints"][0]["addresses"], Json::array({"10.1.0.1"}));
  EXPECT_EQ(slice["ports"][0]["port"], one->program->channel_address().port);
  EXPECT_EQ(slice["metadata"]["labels"]["kubernetes.io/service-name"], "pitcrew-channel");
  EXPECT_EQ(stored(kService, "pitcrew-channel")["spec"].contains("selector"), false);
  EXPECT_EQ(text_in(stored(kSecret, "pitcrew-epoch"), "key").size(), 32u);
  ASSERT_TRUE(until([&] { return one->program->not_ready().empty(); }));
  EXPECT_EQ(get(one->program->metrics_address(), "/readyz"), "200 ok\n");
  const std::string metrics = get(one->program->metrics_address(), "/metrics");
  EXPECT_NE(metrics.find("leader_election_master_status{name=\"pitcrew-operator\"} 1"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("rest_client_requests_total{code=\"201\",method=\"POST\"}"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("workqueue_depth{"), std::string::npos);
  EXPECT_NE(metrics.find("controller_runtime_reconcile_total{"), std::string::npos);
}

TEST_F(ProgramTest, a_job_has_at_most_twenty_one_gauges_and_they_go_with_it) {
  const auto one = replica("one", "10.1.0.1", 1);
  api::TrainingJob job;
  job.metadata.name = "llama";
  job.metadata.ns = "team-a";
  job.spec.container = "train";
  job.spec.pod_template = {
      {"spec", {{"containers", Json::array({{{"name", "train"}, {"command", Json::array({"t"})}}})}}}};
  kube::Request request;
  request.verb = kube::Verb::kCreate;
  request.type = api::TrainingJob::type();
  request.key = {"team-a", ""};
  request.body = kube::Payload::of(job.encode());
  ASSERT_EQ(server_.handle(request).status, 201);
  const auto gauges = [&] {
    std::set<std::string> names;
    std::istringstream text(get(one->program->metrics_address(), "/metrics"));
    for (std::string line; std::getline(text, line);) {
      if (line.find("job=\"llama\"") != std::string::npos) names.insert(line.substr(0, line.find('{')));
    }
    return names;
  };
  ASSERT_TRUE(until([&] { return one->leading() && one->program->running()->numbers().jobs == 1; }));
  const auto shown = gauges();
  EXPECT_TRUE(shown.contains("pitcrew_job_info") && shown.contains("pitcrew_job_goodput_ratio"));
  EXPECT_LE(shown.size(), 21u);
  request.verb = kube::Verb::kDelete;
  request.key.name = "llama";
  request.body = {};
  ASSERT_EQ(server_.handle(request).status, 200);
  ASSERT_TRUE(until([&] { return one->program->running()->numbers().jobs == 0; }));
  EXPECT_TRUE(gauges().empty());
}

TEST_F(ProgramTest, looks_again_and_again_without_a_write) {
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->leading() && !stored(kSlice, "pitcrew-channel-ipv4").is_null(); }));
  const auto writes = [&] { return server_.writes(kSecret) + server_.writes(kService) + server_.writes(kSlice); };
  const uint64_t before = writes();
  const uint64_t requests = server_.requests();
  ASSERT_TRUE(until([&] { return server_.requests() > requests + 60; }));
  EXPECT_EQ(writes(), before);
}

TEST_F(ProgramTest, a_standby_shares_the_root_and_sends_launchers_away) {
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->leading(); }));
  const auto two = replica("two", "10.1.0.2", 2);
  ASSERT_TRUE(until([&] { return two->program->running() != nullptr && two->program->not_ready().empty(); }));
  const std::string root = text_in(stored(kSecret, "pitcrew-channel"), "ca.crt");
  EXPECT_EQ(knock(two->program->channel_address(), root), std::to_string(static_cast<int>(CloseCode::kNotLeader)));
  const std::string metrics = get(two->program->metrics_address(), "/metrics");
  EXPECT_NE(metrics.find("leader_election_master_status{name=\"pitcrew-operator\"} 0"), std::string::npos);
}

TEST_F(ProgramTest, a_leader_that_stops_in_order_hands_over) {
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->leading(); }));
  const auto two = replica("two", "10.1.0.2", 2);
  ASSERT_TRUE(until([&] { return two->program->running() != nullptr && two->program->not_ready().empty(); }));
  one->program->stop();
  EXPECT_EQ(one->program->not_ready(), "stopping");
  loop_.run();  // finish() stops the loop
  EXPECT_EQ(one->program->exit_code(), kExitStopped);
  ASSERT_TRUE(until([&] {
    const Json slice = stored(kSlice, "pitcrew-channel-ipv4");
    return two->leading() && slice["endpoints"][0]["addresses"] == Json::array({"10.1.0.2"});
  }));
}

TEST_F(ProgramTest, a_leader_that_loses_its_lease_ends_and_never_takes_the_service_back) {
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->leading(); }));
  const auto two = replica("two", "10.1.0.2", 2);
  one->transport.set_connected(false);
  loop_.run();
  EXPECT_EQ(one->program->exit_code(), kExitLeaseLost);
  ASSERT_TRUE(until([&] { return two->leading(); }));
  ASSERT_TRUE(until([&] {
    return stored(kSlice, "pitcrew-channel-ipv4")["endpoints"][0]["addresses"] == Json::array({"10.1.0.2"});
  }));
}

TEST_F(ProgramTest, deleted_objects_come_back_as_they_were) {
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->leading() && !stored(kSlice, "pitcrew-channel-ipv4").is_null(); }));
  const Json root = stored(kSecret, "pitcrew-channel")["data"];
  const Json epoch = stored(kSecret, "pitcrew-epoch")["data"];
  remove(kSecret, "pitcrew-channel");
  remove(kSecret, "pitcrew-epoch");
  remove(kSlice, "pitcrew-channel-ipv4");
  ASSERT_TRUE(until([&] {
    return !stored(kSecret, "pitcrew-channel").is_null() && !stored(kSecret, "pitcrew-epoch").is_null() &&
           !stored(kSlice, "pitcrew-channel-ipv4").is_null();
  }));
  EXPECT_EQ(stored(kSecret, "pitcrew-channel")["data"], root);
  EXPECT_EQ(stored(kSecret, "pitcrew-epoch")["data"], epoch);
}

TEST_F(ProgramTest, a_rotation_that_is_asked_for_is_believed_by_both_sides_of_it) {
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->leading(); }));
  const std::string old_root = text_in(stored(kSecret, "pitcrew-channel"), "ca.crt");
  change(kSecret, "pitcrew-channel",
         [](Json& secret) { secret["metadata"]["annotations"]["pitcrew.dev/request-rotate"] = "1"; });
  ASSERT_TRUE(until([&] { return stored(kSecret, "pitcrew-channel")["data"].contains("next.crt"); }));
  const std::string bundle = old_root + text_in(stored(kSecret, "pitcrew-channel"), "next.crt");
  for (const std::string& believed : {old_root, bundle}) {
    EXPECT_EQ(knock(one->program->channel_address(), believed), "4002") << "no hello: the channel itself is fine";
  }
}

TEST_F(ProgramTest, what_keeps_it_from_being_ready_is_said) {
  kube::Request request;
  request.verb = kube::Verb::kCreate;
  request.type = kService;
  request.key = {"system", ""};
  request.body = kube::Payload::of(
      {{"metadata", {{"name", "pitcrew-channel"}, {"namespace", "system"}}},
       {"spec",
        {{"selector", {{"app", "pitcrew"}}}, {"ports", Json::array({{{"name", "channel"}, {"port", 9443}}})}}}});
  ASSERT_EQ(server_.handle(request).status, 201);
  const auto one = replica("one", "10.1.0.1", 1);
  ASSERT_TRUE(until([&] { return one->program->not_ready().find("has a selector") != std::string::npos; }));
  EXPECT_EQ(get(one->program->metrics_address(), "/readyz").substr(0, 3), "503");
  change(kService, "pitcrew-channel", [](Json& service) { service["spec"].erase("selector"); });
  EXPECT_TRUE(until([&] { return one->leading(); }));
}

}  // namespace
}  // namespace pitcrew::control
