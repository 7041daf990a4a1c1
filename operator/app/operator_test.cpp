#include "operator/app/operator.hpp"

#include <set>

#include <gtest/gtest.h>

#include "lib/api/node_health.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "lib/local/node/kubelet.hpp"
#include "lib/local/node/node_controller.hpp"
#include "lib/local/node/scheduler.hpp"
#include "lib/local/node/simulated_runtime.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"
#include "operator/app/metrics.hpp"
#include "operator/channel/memory_channel.hpp"

namespace pitcrew::control {
namespace {

using namespace api::channel;

constexpr uint64_t kTotalSteps = 100;
constexpr uint64_t kStepsPerSecond = 10;

struct OperatorProcess {
  OperatorProcess(Loop& loop, local::ApiServer& server, const std::string& name, uint64_t seed)
      : transport(loop, server), channel(loop, Config{{name + ":1"}, "pitcrew-channel", "ca"}) {
    OperatorSettings settings;
    settings.identity = name;
    settings.epoch_secret = std::string(32, 's');
    op.emplace(loop, transport, channel, Random(seed), Logger(), settings, OperatorHooks{});
    op->start();
  }
  local::MemoryTransport transport;
  MemoryChannelServer channel;
  std::optional<Operator> op;
};

class World;

// A launcher as the operator sees it: connects to whoever leads, trains from epoch to epoch, says when it is done.
class FakeLauncher {
 public:
  FakeLauncher(World& world, const local::ContainerSpec& spec);
  void connect();
  void received(const std::string& text);
  void tick();
  void say(const FromLauncher& message) {
    if (connection_) connection_->send(encode(message));
  }
  void crash_rank();
  const std::string& pod() const { return hello_.pod_name; }

 private:
  World& world_;
  std::string id_;
  std::string token_;
  Hello hello_;
  std::optional<Epoch> epoch_;
  uint64_t step_ = 0;
  bool ended_ = false;
  std::unique_ptr<MemoryChannelServer::Connection> connection_;
  Loop::TimerPtr retry_;
  Loop::TimerPtr ticker_;
};

class World {
 public:
  World() {
    server.register_type(api::TrainingJob::type(), {});
    server.register_type(api::NodeHealth::type(), {});
    controller.emplace(loop, cluster_transport, 11);
    scheduler.emplace(loop, cluster_transport, 12);
    scheduler->start();
  }

  void add_nodes(int count) {
    for (int i = 0; i < count; ++i) {
      auto node = std::make_unique<Node>(loop, server);
      node->runtime.emplace(loop, local::SimulatedRuntime::Model{[this](const local::ContainerSpec& spec) {
                                                                   launchers[spec.id] =
                                                                       std::make_unique<FakeLauncher>(*this, spec);
                                                                 },
                                                                 [this](const std::string& id, int) { exit(id, 0); },
                                                                 [this](const std::string& id) { launchers.erase(id); },
                                                                 {}});
      local::KubeletSettings settings;
      settings.node = "n" + std::to_string(i);
      settings.node_ip = "10.0.0." + std::to_string(i + 1);
      settings.pod_ip_prefix = "10.1." + std::to_string(i);
      settings.allocatable = {{"cpu", "8"}, {"memory", "32Gi"}, {"pods", "10"}};
      node->kubelet.emplace(loop, node->transport, *node->runtime, *controller, Random(100 + i), settings);
      node->kubelet->boot();
      nodes.push_back(std::move(node));
    }
  }

  void exit(const std::string& id, int code) {
    local::ContainerExit exit;
    exit.exit_code = code;
    launchers.erase(id);
    for (auto& node : nodes) node->runtime->exit(id, exit);
  }

  void create_job(uint32_t replicas, uint32_t spares, const std::string& name = "llama", bool saves = false) {
    api::TrainingJob job;
    job.metadata.name = name;
    job.metadata.ns = "team-a";
    job.spec.replicas = replicas;
    job.spec.spares = spares;
    job.spec.container = "train";
    Json container{{"name", "train"},
                   {"image", "i"},
                   {"command", Json::array({"train"})},
                   {"resources", {{"requests", {{"cpu", "6"}}}}}};
    Json pod = Json::object();
    if (saves) {
      job.spec.checkpoint = api::CheckpointSpec{"/shared/llama", api::Interval{}, {}, 3};
      job.spec.checkpoint->every->steps = 500;
      container["volumeMounts"] = {{{"name", "shared"}, {"mountPath", "/shared"}}};
      pod["volumes"] = {{{"name", "shared"}, {"persistentVolumeClaim", {{"claimName", "shared"}}}}};
    }
    pod["containers"] = Json::array({container});
    job.spec.pod_template = {{"spec", pod}};
    client.create<api::TrainingJob>(
        job, [](Result<kube::Ptr<api::TrainingJob>> created) { ASSERT_TRUE(created.ok()) << created.error().message; });
  }

  api::TrainingJobStatus status() const {
    const auto found = server.find(api::TrainingJob::type(), {"team-a", "llama"});
    return found.empty() ? api::TrainingJobStatus() : (*found.as<api::TrainingJob>())->status;
  }
  api::Phase phase() const { return status().phase; }
  // Whether it came to hold within that time.
  bool until(const std::function<bool()>& condition, Duration limit) {
    const Instant end = loop.now() + limit;
    while (loop.now() < end) {
      if (condition()) return true;
      loop.run_for(milliseconds(100));
    }
    return condition();
  }
  size_t live_pods() const {
    size_t live = 0;
    server.for_each(kube::Pod::type(),
                    [&](const kube::Payload& payload) { live += (*payload.as<kube::Pod>())->ended() ? 0 : 1; });
    return live;
  }
  std::string describe() const {
    std::string text =
        "phase " + std::string(api::to_string(phase())) + ", launchers " + std::to_string(launchers.size()) + ", pods:";
    server.for_each(kube::Pod::type(),
                    [&](const kube::Payload& payload) { text += "\n" + (*payload.as<kube::Pod>())->encode().dump(); });
    const auto found = server.find(api::TrainingJob::type(), {"team-a", "llama"});
    return text + "\n" + found.text();
  }

  struct Node {
    Node(Loop& loop, local::ApiServer& server) : transport(loop, server) {}
    local::MemoryTransport transport;
    std::optional<local::SimulatedRuntime> runtime;
    std::optional<local::Kubelet> kubelet;
  };

  VirtualLoop loop;
  local::ApiServer server{loop};
  local::MemoryTransport cluster_transport{loop, server};
  kube::Client client{loop, cluster_transport, 9};
  std::optional<local::NodeController> controller;
  std::optional<local::Scheduler> scheduler;
  std::vector<std::unique_ptr<OperatorProcess>> operators;
  std::vector<std::unique_ptr<Node>> nodes;
  std::map<std::string, std::unique_ptr<FakeLauncher>> launchers;
};

FakeLauncher::FakeLauncher(World& world, const local::ContainerSpec& spec) : world_(world), id_(spec.id) {
  const auto pod = *world.server.find(kube::Pod::type(), {spec.ns, spec.pod_name}).as<kube::Pod>();
  token_ = world.server.issue_token(kAudience, {spec.ns, spec.pod_name}, spec.pod_uid, hours(1));
  hello_.job_uid = pod->metadata.labels.at(api::label::kJobUid);
  hello_.pod_name = spec.pod_name;
  hello_.pod_uid = spec.pod_uid;
  hello_.node = pod->node_name;
  hello_.boot = spec.id;
  hello_.address = pod->pod_ip.empty() ? "10.9.9.9" : pod->pod_ip;
  hello_.peer_port = 4000;
  connect();
}

void FakeLauncher::connect() {
  for (auto& process : world_.operators) {
    if (!process->op || !process->op->leading()) continue;
    const auto again = [this](CloseCode, const std::string&) {
      retry_ = world_.loop.after(milliseconds(500), [this] { connect(); });
    };
    connection_ =
        process->channel.connect(token_, hello_.address, {[this](const std::string& text) { received(text); }, again});
    if (!connection_) continue;
    hello_.seen = epoch_ ? epoch_->id : EpochId{};
    hello_.running = epoch_ && !ended_;
    return say(hello_);
  }
  retry_ = world_.loop.after(milliseconds(500), [this] { connect(); });
}

void FakeLauncher::received(const std::string& text) {
  const auto message = decode_to_launcher(text);
  ASSERT_TRUE(message.ok()) << message.error().message;
  if (const auto* epoch = std::get_if<Epoch>(&*message)) {
    EXPECT_FALSE(epoch->key.empty());
    epoch_ = *epoch;
    ended_ = false;
    step_ = epoch->resume ? epoch->resume->step.value : 0;
    ticker_ = world_.loop.after(milliseconds(500), [this] { tick(); });
  } else if (std::holds_alternative<Finish>(*message)) {
    world_.loop.post([&world = world_, id = id_] { world.exit(id, 0); });
  }
}

void FakeLauncher::tick() {
  if (!epoch_ || !epoch_->slot || ended_) return;
  step_ += kStepsPerSecond;
  Progress progress;
  progress.epoch = epoch_->id;
  progress.step = Step(step_);
  progress.phase = "training";
  progress.total_steps = kTotalSteps;
  progress.resumed_source = "none";
  say(progress);
  if (step_ < kTotalSteps) {
    ticker_ = world_.loop.after(seconds(1), [this] { tick(); });
    return;
  }
  ended_ = true;
  for (const TableEntry& entry : epoch_->table) {
    if (entry.slot != *epoch_->slot) continue;
    Exited exited;
    exited.epoch = epoch_->id;
    exited.rank = entry.first_rank;
    exited.step = Step(step_);
    exited.done = true;
    say(exited);
  }
}

void FakeLauncher::crash_rank() {
  ended_ = true;
  Exited exited;
  exited.epoch = epoch_->id;
  exited.rank = Rank(0);
  exited.kind = ExitKind::kSignaled;
  exited.code = 11;
  exited.reason = "killed by SIGSEGV";
  exited.step = Step(step_);
  say(exited);
}

TEST(Operator, a_job_that_can_not_be_read_is_told_to_its_people) {
  World world;
  world.add_nodes(1);
  Json job{{"apiVersion", api::TrainingJob::type().api_version()},
           {"kind", "TrainingJob"},
           {"metadata", {{"name", "broken"}, {"namespace", "team-a"}}},
           {"spec", {{"replicas", "many"}}}};
  world.client.create_raw(api::TrainingJob::type(), std::move(job), [](Result<kube::Payload>) {});
  OperatorProcess a(world.loop, world.server, "op-a", 1);
  const auto told = [&] {
    std::string notes;
    world.server.for_each(kube::Event::type(), [&](const kube::Payload& event) { notes += event.text(); });
    return notes.find("InvalidSpec") != std::string::npos && notes.find("spec.replicas") != std::string::npos;
  };
  EXPECT_TRUE(world.until(told, minutes(1)));
}

TEST(Operator, keeps_nothing_of_jobs_that_are_gone) {
  World world;
  world.add_nodes(3);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  OperatorProcess& a = *world.operators.front();
  ASSERT_TRUE(world.until([&] { return a.op->leading(); }, minutes(1)));
  EXPECT_EQ(a.op->numbers().kept, 0u);
  Random random(5);
  // Answers and events come in any order: a job may be gone while its pods are made, and before they are seen.
  const auto some = [&](double most) { return milliseconds(static_cast<int64_t>(random.uniform() * most)); };
  a.transport.set_faults(
      [&](const kube::Request& request) {
        local::RequestFault fault;
        if (request.verb != kube::Verb::kWatch) fault.reply_delay = some(100);
        return fault;
      },
      [&](const kube::Request& request, const kube::WatchEvent&) {
        local::WatchFault fault;
        if (request.type == kube::Pod::type()) fault.delay = some(400);
        return fault;
      });
  for (int life = 0; life < 60; ++life) {
    const std::string name = "llama-" + std::to_string(life);
    world.create_job(2, life % 2, name);
    // At any moment of its life: while pods are made, while it trains, after its end.
    world.loop.run_for(milliseconds(static_cast<int64_t>(random.uniform() * (life % 3 == 0 ? 20'000 : 1'000))));
    EXPECT_GT(a.op->numbers().kept, 0u);
    world.client.remove<api::TrainingJob>({"team-a", name}, {}, [](Status) {});
    ASSERT_TRUE(world.until([&] { return world.live_pods() == 0 && a.op->numbers().jobs == 0; }, minutes(5)))
        << world.describe();
  }
  world.loop.run_for(minutes(1));
  EXPECT_EQ(a.op->numbers().kept, 0u);
}

TEST(Operator, forgets_a_job_that_could_not_be_read_when_it_is_deleted) {
  World world;
  OperatorProcess a(world.loop, world.server, "op-a", 1);
  ASSERT_TRUE(world.until([&] { return a.op->leading(); }, minutes(1)));
  for (int i = 0; i < 5; ++i) {
    Json job{{"apiVersion", api::TrainingJob::type().api_version()},
             {"kind", "TrainingJob"},
             {"metadata", {{"name", "broken"}, {"namespace", "team-a"}}},
             {"spec", {{"replicas", "many"}}}};
    world.client.create_raw(api::TrainingJob::type(), std::move(job), [](Result<kube::Payload>) {});
    ASSERT_TRUE(world.until([&] { return a.op->numbers().kept == 1; }, minutes(1)));
    world.client.remove<api::TrainingJob>({"team-a", "broken"}, {}, [](Status) {});
    ASSERT_TRUE(world.until([&] { return a.op->numbers().kept == 0; }, minutes(1)));
  }
  // One that was stored before somebody broke it.
  world.create_job(2, 0);
  ASSERT_TRUE(world.until([&] { return a.op->numbers().jobs == 1; }, minutes(1)));
  kube::Patch broken;
  broken.body = {{"spec", {{"replicas", "many"}}}};
  world.client.patch_raw(api::TrainingJob::type(), {"team-a", "llama"}, std::move(broken),
                         [](Result<kube::Payload>) {});
  world.loop.run_for(seconds(5));
  world.client.remove<api::TrainingJob>({"team-a", "llama"}, {}, [](Status) {});
  EXPECT_TRUE(world.until([&] { return a.op->numbers().jobs == 0 && a.op->numbers().kept == 0; }, minutes(5)));
}

TEST(Operator, shows_the_recoveries_of_nodes_that_are_gone_for_some_scrapes_alone) {
  World world;
  world.add_nodes(1);
  OperatorProcess a(world.loop, world.server, "op-a", 1);
  ASSERT_TRUE(world.until([&] { return a.op->numbers().nodes == 1; }, minutes(1)));
  OperatorMetrics metrics;
  metrics.watch(&*a.op);
  api::Recovery recovery;
  recovery.cause = api::Cause::kNodeLoss;
  for (const char* node : {"n0", "ip-10-0-0-1"}) {
    recovery.node = node;
    metrics.recovered({}, recovery);
  }
  const auto shown = [&](const std::string& node) {
    return net::metrics_text(*metrics.registry()).find("pitcrew_recoveries_by_node_total{node=\"" + node + "\"} 1") !=
           std::string::npos;
  };
  EXPECT_TRUE(shown("ip-10-0-0-1"));
  for (int i = 0; i < 50; ++i) shown("");
  EXPECT_FALSE(shown("ip-10-0-0-1"));
  EXPECT_TRUE(shown("n0"));
}

TEST(Operator, a_job_that_has_never_saved_is_as_long_without_a_checkpoint_as_it_trains) {
  World world;
  world.add_nodes(2);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  OperatorMetrics metrics;
  metrics.watch(&*world.operators[0]->op);
  world.create_job(1, 0, "llama", true);
  world.create_job(1, 0, "saves-by-itself");
  ASSERT_TRUE(world.until([&] { return world.phase() == api::Phase::kRunning; }, minutes(2))) << world.describe();
  const std::string text = net::metrics_text(*metrics.registry());
  const std::string name = "pitcrew_job_checkpoint_durable_time_seconds{namespace=\"team-a\",job=\"llama\"} ";
  const size_t at = text.find(name);
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_NEAR(std::stod(text.substr(at + name.size())), to_seconds(world.status().start_time->since_epoch()), 1);
  EXPECT_EQ(text.find("pitcrew_job_checkpoint_durable_time_seconds", at + name.size()), std::string::npos)
      << "who saves without Pitcrew's knowing is not called late";
  metrics.watch(nullptr);
}

TEST(Operator, takes_a_job_from_pending_to_succeeded) {
  World world;
  world.add_nodes(3);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  std::set<api::Phase> seen;
  world.server.add_observer([&](const local::Change& change) {
    if (change.resource == api::TrainingJob::type()) seen.insert((*change.object.as<api::TrainingJob>())->status.phase);
  });
  world.create_job(2, 1);
  EXPECT_TRUE(world.until([&] { return world.phase() == api::Phase::kRunning; }, minutes(2))) << world.describe();
  EXPECT_EQ(world.live_pods(), 3u) << "two replicas and a spare";
  EXPECT_TRUE(world.until([&] { return world.phase() == api::Phase::kSucceeded; }, minutes(5))) << world.describe();
  EXPECT_EQ(seen, (std::set<api::Phase>{api::Phase::kPending, api::Phase::kStarting, api::Phase::kRunning,
                                        api::Phase::kSucceeded}));
  EXPECT_TRUE(world.until([&] { return world.live_pods() == 0; }, minutes(2))) << world.describe();
}

TEST(Operator, a_crashed_rank_leads_to_a_new_epoch_and_the_job_goes_on) {
  World world;
  world.add_nodes(2);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  world.create_job(2, 0);
  ASSERT_TRUE(world.until([&] { return world.phase() == api::Phase::kRunning; }, minutes(2))) << world.describe();
  const EpochNumber before = world.status().epoch.number;
  world.launchers.begin()->second->crash_rank();
  EXPECT_TRUE(world.until([&] { return world.phase() == api::Phase::kSucceeded; }, minutes(5))) << world.describe();
  EXPECT_GT(world.status().epoch.number, before);
  ASSERT_EQ(world.status().recoveries.size(), 1u);
  EXPECT_EQ(world.status().recoveries[0].rung, api::Rung::kInPlace);
}

TEST(Operator, a_lost_node_is_replaced_by_the_spare) {
  World world;
  world.add_nodes(3);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  world.create_job(2, 1);
  ASSERT_TRUE(world.until([&] { return world.phase() == api::Phase::kRunning; }, minutes(2))) << world.describe();
  const std::string lost = world.status().slots[0].node;
  for (auto& node : world.nodes) {
    if (node->kubelet->node() == lost) node->kubelet->power_off();
  }
  EXPECT_TRUE(world.until([&] { return world.phase() == api::Phase::kSucceeded; }, minutes(10))) << world.describe();
  ASSERT_FALSE(world.status().recoveries.empty());
}

TEST(Operator, the_standby_takes_over_in_a_higher_term_when_the_leader_dies) {
  World world;
  world.add_nodes(2);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-b", 2));
  world.create_job(2, 0);
  ASSERT_TRUE(world.until([&] { return world.phase() == api::Phase::kRunning; }, minutes(2))) << world.describe();
  ASSERT_NE(world.operators[0]->op->leading(), world.operators[1]->op->leading());
  auto& leader = world.operators[0]->op->leading() ? world.operators[0] : world.operators[1];
  auto& standby = world.operators[0]->op->leading() ? world.operators[1] : world.operators[0];
  EXPECT_TRUE(standby->op->ready()) << "its caches are warm";
  const uint64_t term = leader->op->term();
  const Instant killed = world.loop.now();
  leader->op.reset();
  ASSERT_TRUE(world.until([&] { return standby->op->leading(); }, seconds(30)));
  EXPECT_LT(world.loop.now() - killed, seconds(13));
  EXPECT_GT(standby->op->term(), term);
  EXPECT_TRUE(world.until([&] { return world.phase() == api::Phase::kSucceeded; }, minutes(5))) << world.describe();
}

TEST(Operator, stops_in_order_and_hands_the_lease_over_at_once) {
  World world;
  world.add_nodes(1);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  ASSERT_TRUE(world.until([&] { return world.operators[0]->op->leading(); }, seconds(20)));
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-b", 2));
  world.loop.run_for(seconds(5));
  bool stopped = false;
  world.operators[0]->op->stop([&] { stopped = true; });
  EXPECT_FALSE(world.operators[0]->op->ready());
  EXPECT_TRUE(world.until([&] { return stopped && world.operators[1]->op->leading(); }, seconds(3)));
}

TEST(Operator, a_quiet_world_makes_no_writes) {
  World world;
  world.add_nodes(2);
  world.operators.push_back(std::make_unique<OperatorProcess>(world.loop, world.server, "op-a", 1));
  world.create_job(2, 0);
  ASSERT_TRUE(world.until([&] { return world.phase() == api::Phase::kSucceeded; }, minutes(5))) << world.describe();
  world.loop.run_for(minutes(15));  // events of series are over
  const uint64_t leases = world.server.writes({"coordination.k8s.io", "v1", "Lease", "leases", true});
  const uint64_t before = world.server.writes() - leases;
  world.loop.run_for(hours(1));
  EXPECT_EQ(world.server.writes() - world.server.writes({"coordination.k8s.io", "v1", "Lease", "leases", true}),
            before);
  EXPECT_EQ(world.operators[0]->op->queue_depth(), 0u);
}

}  // namespace
}  // namespace pitcrew::control
