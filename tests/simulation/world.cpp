#include "tests/simulation/world.hpp"

#include <algorithm>

#include "lib/kube/types/lease.hpp"
#include "tests/simulation/agent.hpp"
#include "tests/simulation/injector.hpp"

namespace pitcrew::simulation {
namespace {

constexpr Duration kFaultsBegin = minutes(2);
constexpr Duration kFaultsEnd = minutes(42);
constexpr Duration kLength = minutes(60);
constexpr Duration kQuietCheck = minutes(5);
// A herd of thousands of pods is tens of thousands of tasks: what needs more at one instant never ends.
constexpr uint64_t kMostTasksAtOnce = 300'000;

const ResourceType& node_type() { return kube::Node::type(); }

}  // namespace

World::World(WorldSettings settings)
    : settings_(std::move(settings)),
      random_(mix64(settings_.seed)),
      fault_random_(mix64(settings_.seed ^ 0xfa017)),
      api_(loop_, {.seed = settings_.seed, .bookmark_every = minutes(10)}),
      own_transport_(loop_, api_),
      launcher_world_{loop_, random_, {}, {}, {}, {}, {}, {}, {}, false},
      delayed_(loop_) {
  api_.register_type(api::TrainingJob::type(), {});
  // One writer stands for an agent's two.
  api_.register_type(api::NodeHealth::type(), {.status_subresource = false});
  invariants_ = std::make_unique<Invariants>(WorldView{
      [this] { return loop_.now(); },
      [this](const std::string& pod_uid) {
        const Duration unnoticed = last_pause_ && loop_.now() - *last_pause_ < minutes(2) ? minutes(2) : seconds(12);
        const SimLauncher* launcher = launcher_of(pod_uid);
        if (launcher == nullptr) {
          const auto gone = gone_.find(pod_uid);
          return gone != gone_.end() && loop_.now() - gone->second < unnoticed;
        }
        if (!launcher->greeted()) return false;
        if (launcher->server() != nullptr) return true;
        return launcher->connection_lost() && loop_.now() - *launcher->connection_lost() < unnoticed;
      },
      [this](const std::string& job_uid, EpochId epoch) {
        for (const auto& job : jobs_) {
          if (job->uid != job_uid) continue;
          const auto gang = job->gangs.find(epoch);
          return gang != job->gangs.end() && gang->second->training();
        }
        return false;
      },
      [this](const std::string& name) {
        for (const auto& node : nodes_) {
          if (node->name == name) return node->disturbed && loop_.now() - *node->disturbed < minutes(10);
        }
        return true;
      },
      [this](const std::string& name) {
        return std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& node) {
          return node->name == name && node->accused && loop_.now() - *node->accused < minutes(10);
        });
      },
      [this](const std::string& job_uid) -> const api::TrainingJob* {
        const auto found = stored_.find(job_uid);
        return found == stored_.end() ? nullptr : found->second.get();
      }});
  api_.add_observer([this](const local::Change& change) {
    invariants_->changed(change);
    if (change.resource.kind == "TrainingJob" && change.type != kube::WatchEventType::kDeleted) {
      if (const auto job = change.object.as<api::TrainingJob>()) {
        const auto& known = stored_[(*job)->metadata.uid];
        if (settings_.trace &&
            (!known || known->status.phase != (*job)->status.phase || known->status.epoch != (*job)->status.epoch)) {
          trace((*job)->metadata.name + ": " + std::string(api::to_string((*job)->status.phase)) + ", epoch " +
                std::to_string((*job)->status.epoch.number.value) +
                ((*job)->status.recoveries.empty()
                     ? ""
                     : ", last recovery " + std::string(api::to_string((*job)->status.recoveries.front().cause)) + " " +
                           std::string(api::to_string((*job)->status.recoveries.front().rung)) + ": " +
                           (*job)->status.recoveries.front().evidence));
        }
        stored_[(*job)->metadata.uid] = *job;
      }
    }
  });
  launcher_world_.server = [this](const std::string& node) { return server_for(node); };
  launcher_world_.token = [this](const local::ContainerSpec& spec) {
    return api_.issue_token(api::channel::kAudience, {spec.ns, spec.pod_name}, spec.pod_uid, hours(2));
  };
  launcher_world_.job_uid = [this](const local::ContainerSpec& spec) -> std::string {
    for (const auto& job : jobs_) {
      if (spec.pod_name.starts_with(job->name + "-")) return job->uid;
    }
    return "";
  };
  launcher_world_.gang = [this](const api::channel::Epoch& epoch) { return gang_of(epoch); };
  launcher_world_.accepted = [this](const SimLauncher& launcher, const api::channel::ToLauncher& message) {
    if (const auto* epoch = std::get_if<api::channel::Epoch>(&message)) invariants_->epoch_accepted(launcher, *epoch);
    invariants_->told(launcher, message);
  };
  launcher_world_.exit = [this](const SimLauncher& launcher, int code) {
    for (const auto& node : nodes_) {
      if (node->name != launcher.node()) continue;
      local::ContainerExit exit;
      exit.exit_code = code;
      const std::string id = launcher.spec().id;
      delayed_.after(Duration(0), [this, node = node.get(), id, exit] {
        node->runtime->exit(id, exit);
        container_gone(*node, id);
      });
    }
  };
  launcher_world_.trace = [this](const std::string& line) { trace(line); };

  controller_ = std::make_unique<local::NodeController>(loop_, own_transport_, random_());
  scheduler_ = std::make_unique<local::Scheduler>(loop_, own_transport_, random_());
  scheduler_->start();
  make_nodes();
  for (const char* name : {"operator-a", "operator-b"}) {
    auto op = std::make_unique<OperatorProcess>();
    op->name = name;
    operators_.push_back(std::move(op));
    boot_operator(*operators_.back());
  }
  make_jobs();
}

World::~World() {
  for (auto& node : nodes_) {
    for (auto& [id, launcher] : node->launchers) launcher->die(true);
    node->kubelet.reset();
  }
  for (auto& op : operators_) kill_operator(*op);
}

void World::trace(const std::string& line) const {
  if (settings_.trace) settings_.trace(to_rfc3339(loop_.now(), 3).substr(11) + " " + line);
}

void World::make_nodes() {
  const size_t count = 12 + random_.below(4);
  for (size_t i = 0; i < count; ++i) {
    auto node = std::make_unique<Node>();
    node->name = "node-" + std::string(i < 10 ? "0" : "") + std::to_string(i);
    node->transport = std::make_unique<local::MemoryTransport>(loop_, api_);
    Node* raw = node.get();
    node->runtime = std::make_unique<local::SimulatedRuntime>(
        loop_,
        local::SimulatedRuntime::Model{[this, raw](const local::ContainerSpec& spec) { container_started(*raw, spec); },
                                       [raw](const std::string& id, int) {
                                         const auto found = raw->launchers.find(id);
                                         if (found != raw->launchers.end()) found->second->signaled();
                                       },
                                       [this, raw](const std::string& id) { container_gone(*raw, id); },
                                       [this, raw] {
                                         raw->frozen = true;
                                         for (auto& [id, launcher] : raw->launchers) launcher->die(true);
                                       }});
    local::KubeletSettings settings;
    settings.node = node->name;
    settings.node_ip = "10.0.0." + std::to_string(i + 1);
    settings.pod_ip_prefix = "10.1." + std::to_string(i);
    settings.restart_backoff_first = seconds(10);
    settings.boot_again_after = seconds(60 + static_cast<int64_t>(random_.below(400)));
    node->kubelet = std::make_unique<local::Kubelet>(loop_, *node->transport, *node->runtime, *controller_,
                                                     random_.split(), settings);
    nodes_.push_back(std::move(node));
  }
  for (auto& node : nodes_) node->kubelet->boot();
}

void World::make_jobs() {
  for (int i = 0; i < 3; ++i) {
    auto job = std::make_unique<Job>();
    job->name = "job-" + std::string(1, static_cast<char>('a' + i));
    Program& program = job->program;
    program.step_time = milliseconds(500 + random_.below(1000));
    program.total_steps = random_.chance(0.4) ? 800 + random_.below(1500) : 100'000;
    program.peers_exit = random_.chance(0.3);
    const uint32_t replicas = 2 + static_cast<uint32_t>(random_.below(2));
    const uint32_t spares = 1;
    if (random_.chance(0.06)) {
      program.fails_at_step = 100 + random_.below(800);
      program.failing_slot = static_cast<uint32_t>(random_.below(replicas));
    }
    const bool tight = random_.chance(0.25);
    const Json manifest = {
        {"apiVersion", "pitcrew.dev/v1alpha1"},
        {"kind", "TrainingJob"},
        {"metadata", {{"name", job->name}, {"namespace", "team"}}},
        {"spec",
         {{"replicas", replicas},
          {"spares", spares},
          {"template",
           {{"spec",
             {{"volumes", {{{"name", "shared"}, {"persistentVolumeClaim", {{"claimName", "shared"}}}}}},
              {"containers",
               {{{"name", "train"},
                 {"image", "train:1"},
                 {"command", {"train"}},
                 {"volumeMounts", {{{"name", "shared"}, {"mountPath", "/checkpoints"}}}},
                 {"resources", {{"requests", {{"cpu", "5"}}}}}}}}}}}},
          {"checkpoint",
           {{"path", "/checkpoints"},
            {"every", {{"steps", program.durable_every}}},
            {"memory", {{"every", {{"steps", program.memory_every}}}, {"copies", 1}}}}},
          {"recovery",
           {{"limit", {{"restarts", tight ? 3 : 20}, {"window", "1h"}}},
            {"inPlace", {{"limit", 2}, {"window", "1h"}}},
            {"waitInPlace", random_.chance(0.5) ? "90s" : "10m"}}},
          {"placement", {{"gangTimeout", "4m"}}}}}};
    const auto answer = api_.handle({.verb = kube::Verb::kCreate,
                                     .type = api::TrainingJob::type(),
                                     .key = {"team", ""},
                                     .subresource = "",
                                     .patch = kube::PatchKind::kMerge,
                                     .query = {},
                                     .body = kube::Payload::text(manifest.dump())});
    PITCREW_INVARIANT(answer.status < 300, answer.body.text());
    job->uid = (*answer.body.json().value_or(nullptr))["metadata"]["uid"];
    if (program.fails_at_step) faults_.push_back({"bad-program", loop_.now(), {job->uid}, kLength});
    jobs_.push_back(std::move(job));
  }
}

void World::boot_operator(OperatorProcess& op) {
  op.loop = std::make_unique<PausableLoop>(loop_);
  op.transport = std::make_unique<local::MemoryTransport>(*op.loop, api_);
  op.transport->set_faults([this, &op](const kube::Request& request) { return request_fault(op, request); },
                           [this, &op](const kube::Request&, const kube::WatchEvent&) { return watch_fault(op); });
  op.channel = std::make_unique<control::MemoryChannelServer>(
      *op.loop, api::channel::Config{{"10.9.0.1:9443"}, "pitcrew-channel", "CA"}, milliseconds(2));
  control::OperatorSettings settings;
  settings.identity = op.name + "-" + std::to_string(random_.below(1'000'000));
  settings.epoch_secret = std::string(32, 's');
  settings.lease_duration = seconds(20);
  settings.renew_deadline = seconds(13);
  settings.retry_period = seconds(4);
  Logger log;
  if (settings_.operator_logs && settings_.trace) {
    log = Logger::to([this, name = op.name](LogLevel, const std::string& line) { trace(name + ": " + line); },
                     LogFormat::kPlain);
  }
  control::OperatorHooks hooks;
  hooks.leadership = [this, name = op.name](bool leading, uint64_t term) {
    trace(name + (leading ? " leads, term " : " does not lead any more, term ") + std::to_string(term));
  };
  op.process =
      std::make_unique<control::Operator>(*op.loop, *op.transport, *op.channel, random_.split(), log, settings, hooks);
  op.process->start();
}

void World::kill_operator(OperatorProcess& op) {
  op.process.reset();
  op.channel.reset();
  op.transport.reset();
  if (!op.loop) return;
  op.loop->resume();
  ended_loops_.push_back(std::move(op.loop));
}

World::OperatorProcess* World::leader() {
  for (auto& op : operators_) {
    if (op->process && op->process->leading() && !op->loop->paused()) return op.get();
  }
  return nullptr;
}

local::RequestFault World::request_fault(OperatorProcess& op, const kube::Request& request) {
  local::RequestFault fault;
  if (request.verb == kube::Verb::kDelete && request.type.kind == "Pod") invariants_->operator_deletes(request.key);
  fault.request_delay = milliseconds(1 + random_.below(4));
  fault.reply_delay = milliseconds(1 + random_.below(4));
  if (loop_.now() >= op.api_trouble_until) return fault;
  const double dice = random_.uniform();
  if (dice < 0.12)
    fault.before = Error(Code::kUnavailable, "injected: connection refused");
  else if (dice < 0.24)
    fault.lost_reply = Error(Code::kUnavailable, "injected: the reply was lost");
  else if (dice < 0.30)
    fault.answer = local::too_many_requests(seconds(1));
  else if (dice < 0.33 && request.verb == kube::Verb::kWatch)
    fault.answer = local::gone();
  else if (dice < 0.40)
    fault.request_delay = milliseconds(random_.below(3000));
  else if (dice < 0.42)
    fault.black_hole = true;
  return fault;
}

local::WatchFault World::watch_fault(OperatorProcess& op) {
  local::WatchFault fault;
  if (loop_.now() >= op.api_trouble_until) return fault;
  const double dice = random_.uniform();
  if (dice < 0.2)
    fault.delay = milliseconds(random_.below(4000));
  else if (dice < 0.35)
    fault.repeat = true;
  else if (dice < 0.40)
    fault.gone = true;
  else if (dice < 0.50)
    fault.cut = true;
  return fault;
}

control::MemoryChannelServer* World::server_for(const std::string& name) {
  if (loop_.now() < herd_until_) return nullptr;
  for (const auto& node : nodes_) {
    if (node->name == name && (node->partitioned || node->channel_cut || node->frozen)) return nullptr;
  }
  OperatorProcess* op = leader();
  return op == nullptr ? nullptr : op->channel.get();
}

Gang* World::gang_of(const api::channel::Epoch& epoch) {
  for (auto& job : jobs_) {
    if (job->uid != epoch.job.uid) continue;
    auto& gang = job->gangs[epoch.id];
    if (!gang) gang = std::make_unique<Gang>(loop_, random_.split(), job->program, epoch);
    return gang.get();
  }
  return nullptr;
}

Gang* World::present_gang(const Job& job) const {
  return job.gangs.empty() ? nullptr : job.gangs.rbegin()->second.get();
}

SimLauncher* World::launcher_of(const std::string& pod_uid) {
  const auto found = launchers_.find(pod_uid);
  return found == launchers_.end() ? nullptr : found->second;
}

void World::container_started(Node& node, const local::ContainerSpec& spec) {
  if (spec.container != "train") return;
  auto launcher = std::make_unique<SimLauncher>(launcher_world_, spec, node.name, node.memory[spec.pod_uid]);
  launchers_[spec.pod_uid] = launcher.get();
  node.launchers[spec.id] = std::move(launcher);
}

void World::container_gone(Node& node, const std::string& id) {
  const auto found = node.launchers.find(id);
  if (found == node.launchers.end()) return;
  const std::string uid = found->second->spec().pod_uid;
  // A process that is killed closes its sockets; one that loses its power does not.
  found->second->die(node.frozen || node.partitioned);
  if (found->second->greeted()) gone_[uid] = loop_.now();
  if (launchers_[uid] == found->second.get()) launchers_.erase(uid);
  node.launchers.erase(found);
}

std::shared_ptr<const api::TrainingJob> World::stored(const std::string& job_uid) const {
  const auto found = stored_.find(job_uid);
  return found == stored_.end() ? nullptr : found->second;
}

Result<Json> World::patch(const ResourceType& type, const ObjectKey& key, Json body) {
  const auto answer = api_.handle({.verb = kube::Verb::kPatch,
                                   .type = type,
                                   .key = key,
                                   .subresource = "",
                                   .patch = kube::PatchKind::kMerge,
                                   .query = {},
                                   .body = kube::Payload::of(std::move(body))});
  if (answer.status >= 300) return Error(Code::kInternal, answer.body.text());
  return Json();
}

// False once an invariant is broken: what comes after tells nothing more.
bool World::run_until(Instant time) {
  bool reached = loop_.now() >= time;
  const auto end = loop_.after(time - loop_.now(), [&reached] { reached = true; });
  Instant instant = loop_.now();
  for (uint64_t tasks = 0; !reached && invariants_->violations().empty(); ++tasks) {
    loop_.step();
    if (loop_.now() != instant) {
      instant = loop_.now();
      tasks = 0;
    } else if (tasks == kMostTasksAtOnce) {
      invariants_->violated("time-goes-on", std::to_string(tasks) + " tasks at one instant, and no end");
    }
  }
  return invariants_->violations().empty();
}

void World::run() {
  const Instant begin = loop_.now();
  if (!run_until(begin + kFaultsBegin)) return;
  Injector injector(*this);
  const size_t count = 8 + fault_random_.below(5);
  std::vector<Instant> times;
  for (size_t i = 0; i < count; ++i) {
    times.push_back(loop_.now() + milliseconds(fault_random_.below(
                                      static_cast<uint64_t>((kFaultsEnd - kFaultsBegin) / milliseconds(1)))));
  }
  std::sort(times.begin(), times.end());
  for (const Instant time : times) {
    if (!run_until(time)) return;
    injector.inject();
  }
  if (!run_until(begin + kFaultsEnd)) return;
  heal_everything();
  if (!run_until(begin + kLength - kQuietCheck)) return;
  check_end();
  check_quiet();
}

void World::heal_everything() {
  trace("everything is healed");
  for (auto& node : nodes_) {
    node->channel_cut = false;
    if (node->partitioned) {
      node->partitioned = false;
      node->transport->set_connected(true);
      node->kubelet->set_partitioned(false);
    }
    if (node->frozen) {
      node->kubelet->power_off();
      node->frozen = false;
    }
    if (node->quarantined) {
      node->quarantined = false;
      SimAgent(api_, loop_.now()).release(node->name);
      SimAgent(api_, loop_.now()).no_verdict(node->name);
    }
    if (node->cordoned) {
      node->cordoned = false;
      (void)patch(node_type(), {"", node->name}, {{"spec", {{"unschedulable", nullptr}}}});
    }
  }
  for (auto& op : operators_) {
    op->api_trouble_until = Instant{};
    if (op->loop) op->loop->resume();
    if (op->transport) op->transport->set_connected(true);
    if (!op->process) boot_operator(*op);
  }
  for (auto& job : jobs_)
    (void)patch(api::TrainingJob::type(), {"team", job->name}, {{"spec", {{"lifecycle", {{"suspend", false}}}}}});
}

void World::check_end() {
  for (const auto& job : jobs_) {
    const auto now = stored(job->uid);
    if (!now || api::terminal(now->status.phase)) continue;
    const Gang* gang = present_gang(*job);
    const bool trains = now->status.phase == api::Phase::kRunning && gang != nullptr &&
                        gang->id() == EpochId{now->status.epoch.term, now->status.epoch.number} &&
                        (gang->training() || gang->finished());
    const Condition* admitted = find_condition(now->status.conditions, "Admitted");
    const bool waits = now->status.phase == api::Phase::kPending && admitted != nullptr && !admitted->status &&
                       !admitted->message.empty();
    if (!trains && !waits) {
      invariants_->violated("every-job-has-its-way",
                            job->name + " is " + std::string(api::to_string(now->status.phase)) + " in epoch " +
                                std::to_string(now->status.epoch.number.value) +
                                " and neither trains, nor waits for a stated reason, nor is over");
    }
  }
  // Nothing is left over.
  api_.for_each(kube::Pod::type(), [&](const kube::Payload& payload) {
    const auto pod = payload.as<kube::Pod>();
    if (!pod || (*pod)->deleting() || (*pod)->ended()) return;
    const OwnerReference* owner = (*pod)->metadata.controller();
    const auto job = owner == nullptr ? nullptr : stored(owner->uid);
    if (!job) return;
    const Serial serial(static_cast<uint32_t>(std::stoul((*pod)->metadata.labels.at(api::label::kSerial))));
    const auto& records = job->status.pods;
    if (std::none_of(records.begin(), records.end(),
                     [&](const api::PodRecord& record) { return record.serial == serial; })) {
      invariants_->violated("no-pod-is-left-over", "pod " + (*pod)->metadata.name);
    }
  });
}

// The ranks fall silent about their progress, nothing is injected: then nobody may write anything but leases.
void World::check_quiet() {
  for (auto& job : jobs_) {
    for (auto& [id, gang] : job->gangs) gang->fall_quiet();
  }
  if (!run_until(loop_.now() + minutes(1) + seconds(5))) return;  // what was said last is written
  const uint64_t before = api_.writes() - api_.writes(kube::Lease::type());
  if (!run_until(loop_.now() + kQuietCheck - minutes(1) - seconds(5))) return;
  const uint64_t writes = api_.writes() - api_.writes(kube::Lease::type()) - before;
  if (writes > 0)
    invariants_->violated("quiet-world-makes-no-writes",
                          std::to_string(writes) + " writes in a world where nothing happens");
}

std::string World::outcome() const {
  std::string text;
  for (const auto& job : jobs_) {
    const auto now = stored(job->uid);
    text += (text.empty() ? "" : ", ") + job->name + " " +
            (now ? std::string(api::to_string(now->status.phase)) : "gone") + " in epoch " +
            std::to_string(now ? now->status.epoch.number.value : 0);
  }
  return text;
}

}  // namespace pitcrew::simulation
