#include "tests/bench/operator/swarm/swarm.hpp"

#include <gtest/gtest.h>

#include "lib/api/training_job.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "operator/app/program.hpp"

namespace pitcrew::swarm {
namespace {

constexpr Duration kPatience = seconds(60);  // of a noisy machine; nothing waits for it when all is well
constexpr uint32_t kGang = 4;

// The API server in memory, with TokenRequest.
class TokenTransport final : public kube::Transport {
 public:
  TokenTransport(Loop& loop, local::ApiServer& server) : loop_(loop), server_(server), inner_(loop, server) {}

  kube::CallPtr send(kube::Request request, Answer answer) override {
    if (request.subresource != "token") return inner_.send(std::move(request), std::move(answer));
    const Json& spec = (**request.body.json())["spec"];
    const Json& pod = spec["boundObjectRef"];
    kube::Response response;
    response.status = 201;
    response.body =
        kube::Payload::of({{"status",
                            {{"token", server_.issue_token(spec["audiences"][0], {request.key.ns, pod["name"]},
                                                           pod["uid"], hours(1))}}}});
    loop_.post([answer = std::move(answer), response = std::move(response)] { answer(response); });
    return std::make_unique<kube::Call>();
  }
  kube::CallPtr watch(kube::Request request, WatchSink sink) override {
    return inner_.watch(std::move(request), std::move(sink));
  }

 private:
  Loop& loop_;
  local::ApiServer& server_;
  local::MemoryTransport inner_;
};

class SwarmTest : public testing::Test {
 protected:
  SwarmTest()
      : server_(loop_, {}), transport_(loop_, server_), client_(loop_, transport_, 7), pods_(loop_, transport_, 8) {
    server_.register_type(api::TrainingJob::type(), {});
    server_.set_admission({"", "v1", "Service", "services", true}, [](const Json* old, Json& service) -> Status {
      if (old == nullptr) service["spec"]["clusterIP"] = "10.96.0.7";
      return {};
    });
    for (uint32_t i = 0; i < kGang + 1; ++i) add_node("sim-" + std::to_string(i));
    pods_.add_handler(
        {[this](const auto& pod, bool) { play(*pod); }, [this](const auto&, const auto& pod) { play(*pod); }, {}});
    pods_.start();

    control::OperatorConfig config;
    config.launcher_image = "launcher";
    config.channel_port = config.metrics_port = config.health_port = 0;
    control::OperatorProgramSettings settings;
    settings.listen_host = "127.0.0.1";
    settings.look_every = milliseconds(50);
    program_.emplace(loop_, transport_, transport_, config, control::OperatorPlace{"system", "one", "192.0.2.1"},
                     settings, Random(1), Logger());
    EXPECT_TRUE(program_->start().ok());

    SwarmSettings swarm;
    swarm.ns = "team-a";
    swarm.channel_ns = "system";
    swarm_.emplace(
        loop_, transport_, swarm, 3, [this](const Census& census) { last_ = census; }, Logger());
    swarm_->start();
  }

  void add_node(const std::string& name) {
    client_.create_raw(kube::Node::type(), {{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", name}}}},
                       [](const auto& created) { ASSERT_TRUE(created.ok()) << created.error().message; });
    kube::Patch ready;
    ready.subresource = "status";
    ready.body = {{"status",
                   {{"allocatable", {{"cpu", "8"}, {"memory", "32Gi"}, {"pods", "10"}}},
                    {"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}})}}}};
    client_.patch_raw(kube::Node::type(), {"", name}, ready,
                      [](const auto& patched) { ASSERT_TRUE(patched.ok()) << patched.error().message; });
  }

  // The scheduler's, the kubelet's and kwok's part.
  void play(const kube::Pod& pod) {
    if (pod.node_name.empty()) {
      return client_.bind(pod.metadata.key(), pod.metadata.uid, pod.required_node, [](const Status&) {});
    }
    kube::Patch patch;
    patch.subresource = "status";
    const auto end = pod.metadata.annotations.find(kEnd);
    if (pod.phase == kube::PodPhase::kPending) {
      patch.body = {{"status", {{"phase", "Running"}, {"podIP", "10.1.0.1"}}}};
    } else if (pod.phase == kube::PodPhase::kRunning && end != pod.metadata.annotations.end()) {
      patch.body = {{"status", {{"phase", end->second}}}};
    } else {
      return;
    }
    client_.patch_raw(kube::Pod::type(), pod.metadata.key(), patch, [](const auto&) {});
  }

  void create_job() {
    api::TrainingJob job;
    job.metadata.name = "gang";
    job.metadata.ns = "team-a";
    job.spec.replicas = kGang;
    job.spec.container = "train";
    const Json container{{"name", "train"},
                         {"image", "i"},
                         {"command", Json::array({"train"})},
                         {"resources", {{"requests", {{"cpu", "6"}}}}}};
    job.spec.pod_template = {{"spec", {{"containers", Json::array({container})}}}};
    client_.create<api::TrainingJob>(job,
                                     [](const auto& created) { ASSERT_TRUE(created.ok()) << created.error().message; });
  }
  api::TrainingJobStatus status() const {
    const auto found = server_.find(api::TrainingJob::type(), {"team-a", "gang"});
    return found.empty() ? api::TrainingJobStatus() : (*found.as<api::TrainingJob>())->status;
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, kPatience); }
  bool train() {
    create_job();
    return until([&] { return last_.training == kGang && status().phase == api::Phase::kRunning; });
  }

  net::AsioLoop loop_;
  local::ApiServer server_;
  TokenTransport transport_;
  kube::Client client_;
  kube::Informer<kube::Pod> pods_;
  std::optional<control::OperatorProgram> program_;
  std::optional<Swarm> swarm_;
  Census last_;
};

TEST_F(SwarmTest, all_pods_of_a_gang_are_let_in_and_train) {
  ASSERT_TRUE(train()) << to_json(last_);
  EXPECT_EQ(last_.running, kGang);
  EXPECT_EQ(last_.connected, kGang);
  EXPECT_EQ(last_.seen, kGang);
}

TEST_F(SwarmTest, a_pod_that_fails_is_replaced_and_all_train_again) {
  ASSERT_TRUE(train());
  const EpochId before = last_.epoch;
  ASSERT_EQ(swarm_->fail(1).size(), 1u);
  ASSERT_TRUE(until([&] { return last_.training == kGang && last_.epoch > before; })) << to_json(last_);
  EXPECT_EQ(last_.seen, kGang + 1);
  EXPECT_EQ(last_.ended, 1u);
}

TEST_F(SwarmTest, a_crashed_rank_restarts_the_gang_inside_its_pods) {
  ASSERT_TRUE(train());
  const EpochId before = last_.epoch;
  ASSERT_NE(swarm_->crash(), "");
  EXPECT_EQ(swarm_->census().training, 0u);  // nobody steps on without it
  ASSERT_TRUE(until([&] { return last_.training == kGang && last_.epoch > before; })) << to_json(last_);
  EXPECT_EQ(last_.seen, kGang);
}

TEST(EndpointSlice, connections_end_at_a_ready_endpoint_of_any_slice) {
  const auto slice = [](const char* address, bool ready) {
    const auto decoded = EndpointSlice::decode(
        {{"metadata", {{"name", "s"}, {"namespace", "n"}}},
         {"endpoints", Json::array({{{"addresses", Json::array({address})}, {"conditions", {{"ready", ready}}}}})},
         {"ports", Json::array({{{"port", 9443}}})}});
    EXPECT_TRUE(decoded.ok());
    return *decoded;
  };
  EXPECT_EQ(destination({slice("10.0.0.1", false)}, ""), std::nullopt);
  EXPECT_EQ(destination({slice("10.0.0.1", false), slice("10.0.0.2", true)}, ""), (net::Address{"10.0.0.2", 9443}));
  EXPECT_EQ(destination({slice("10.0.0.2", true)}, "127.0.0.1"), (net::Address{"127.0.0.1", 9443}));
}

}  // namespace
}  // namespace pitcrew::swarm
