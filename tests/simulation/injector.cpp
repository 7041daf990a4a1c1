#include "tests/simulation/injector.hpp"

#include <algorithm>

#include "tests/simulation/agent.hpp"

namespace pitcrew::simulation {
namespace {

using api::channel::ExitKind;

struct Kind {
  const char* name;
  uint32_t weight;
};

constexpr Kind kKinds[] = {
    {"rank-crash", 10},
    {"rank-exception", 5},
    {"bad-configuration", 1},
    {"replace-my-node", 4},
    {"hang", 6},
    {"launcher-death", 8},
    {"launcher-dies-twice", 3},
    {"power-off", 8},
    {"freeze", 5},
    {"partition", 6},
    {"channel-cut", 6},
    {"herd", 5},
    {"drought", 4},
    {"pod-deleted", 5},
    {"drain", 3},
    {"gpu-fault", 6},
    {"contained-error", 4},
    {"fleet-verdict", 2},
    {"suspend", 4},
    {"leader-killed", 6},
    {"leader-paused", 6},
    {"leader-cut-off", 4},
    {"api-trouble", 8},
    {"watches-lost", 4},
};

}  // namespace

std::vector<std::string> Injector::kinds() {
  std::vector<std::string> names{"bad-program"};
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

void Injector::inject() {
  uint32_t total = 0;
  for (const Kind& kind : kKinds) total += kind.weight;
  // A kind that finds nothing to hit gives way to another.
  for (int attempt = 0; attempt < 20; ++attempt) {
    uint64_t dice = random_.below(total);
    for (const Kind& kind : kKinds) {
      if (dice < kind.weight) {
        if (run(kind.name)) return;
        break;
      }
      dice -= kind.weight;
    }
  }
}

void Injector::record(const std::string& kind, std::set<std::string> jobs, Duration effect) {
  w_.trace("FAULT " + kind);
  w_.faults_.push_back({kind, w_.loop_.now(), std::move(jobs), effect});
}

World::Node* Injector::node_named(const std::string& name) {
  for (auto& node : w_.nodes_) {
    if (node->name == name) return node.get();
  }
  return nullptr;
}

std::set<std::string> Injector::jobs_on(const World::Node& node) const {
  std::set<std::string> jobs;
  for (const auto& [id, launcher] : node.launchers) jobs.insert(launcher->job_uid());
  return jobs;
}

Injector::Target Injector::training_rank() {
  std::vector<Target> targets;
  for (auto& job : w_.jobs_) {
    for (auto& node : w_.nodes_) {
      if (node->frozen || node->partitioned) continue;
      for (auto& [id, launcher] : node->launchers) {
        if (launcher->job_uid() != job->uid || launcher->gang() == nullptr || !launcher->gang()->training()) continue;
        targets.push_back({job.get(), launcher.get(), node.get()});
      }
    }
  }
  if (targets.empty()) return {};
  return targets[random_.below(targets.size())];
}

bool Injector::run(const std::string& kind) {
  if (kind == "rank-crash" || kind == "rank-exception" || kind == "bad-configuration" || kind == "replace-my-node")
    return rank_exit(kind);
  if (kind == "hang") return hang();
  if (kind == "launcher-death" || kind == "launcher-dies-twice") {
    const Target target = training_rank();
    if (target.launcher == nullptr) return false;
    record(kind, {target.job->uid}, minutes(4));
    const std::string uid = target.launcher->spec().pod_uid;
    const auto kill = [this, uid, node = target.node] {
      SimLauncher* launcher = w_.launcher_of(uid);
      if (launcher == nullptr) return;
      const std::string id = launcher->spec().id;
      local::ContainerExit exit;
      exit.exit_code = 137;
      exit.signal = 9;
      exit.oom = true;
      node->runtime->exit(id, exit);
      w_.container_gone(*node, id);
    };
    kill();
    if (kind == "launcher-dies-twice") w_.delayed_.after(seconds(60), kill);
    return true;
  }
  if (kind == "power-off" || kind == "freeze" || kind == "partition" || kind == "channel-cut") return node_fault(kind);
  if (kind == "gpu-fault" || kind == "contained-error" || kind == "fleet-verdict") return verdict(kind);
  if (kind == "drought") return drought();
  if (kind == "pod-deleted") return pod_deleted(false);
  if (kind == "drain") return pod_deleted(true);
  if (kind == "herd") return herd();
  if (kind == "suspend") return suspend();
  if (kind.starts_with("leader-")) return leader_fault(kind);
  return api_fault(kind);
}

bool Injector::rank_exit(const std::string& kind) {
  const Target target = training_rank();
  if (target.launcher == nullptr) return false;
  record(kind, {target.job->uid});
  if (kind == "replace-my-node" && random_.chance(0.25)) lose_spare(target.job->uid);
  Gang* gang = target.launcher->gang();
  const Slot slot = *target.launcher->slot();
  if (kind == "rank-crash")
    gang->rank_exits(slot, ExitKind::kSignaled, random_.chance(0.5) ? 9 : 11, "");
  else if (kind == "rank-exception")
    gang->rank_exits(slot, ExitKind::kExited, 1, "RuntimeError: " + std::to_string(random_.below(1000)));
  else if (kind == "bad-configuration")
    gang->rank_exits(slot, ExitKind::kExited, 64, "unknown option");
  else
    gang->rank_exits(slot, ExitKind::kExited, 76, "");
  return true;
}

bool Injector::hang() {
  const Target target = training_rank();
  if (target.launcher == nullptr) return false;
  record("hang", {target.job->uid});
  target.launcher->gang()->hang(*target.launcher->slot(), seconds(30));
  return true;
}

void Injector::power_off(World::Node& node) {
  node.disturbed = w_.loop_.now();
  // Nobody gets a FIN.
  for (auto& [id, launcher] : node.launchers) launcher->die(true);
  node.memory.clear();
  node.kubelet->power_off();
}

void Injector::partition(World::Node& node, Duration length) {
  node.disturbed = w_.loop_.now();
  node.partitioned = true;
  node.transport->set_connected(false);
  node.kubelet->set_partitioned(true);
  for (auto& [id, launcher] : node.launchers) {
    launcher->cut();
    if (launcher->gang() != nullptr && launcher->slot())
      launcher->gang()->leave(*launcher->slot(), "partitioned", true);
  }
  w_.delayed_.after(length, [&node] {
    if (!node.partitioned) return;
    node.partitioned = false;
    node.transport->set_connected(true);
    node.kubelet->set_partitioned(false);
  });
}

// The job's spare dies with its node, so that the next lost slot needs a new pod.
void Injector::lose_spare(const std::string& job_uid) {
  for (auto& node : w_.nodes_) {
    for (const auto& [id, launcher] : node->launchers) {
      if (launcher->job_uid() != job_uid || launcher->slot()) continue;
      power_off(*node);
      return;
    }
  }
}

void Injector::cordon(World::Node& node, Duration length) {
  if (node.cordoned || node.quarantined) return;
  node.cordoned = true;
  (void)w_.patch(kube::Node::type(), {"", node.name}, {{"spec", {{"unschedulable", true}}}});
  w_.delayed_.after(length, [this, &node] {
    if (!node.cordoned) return;
    node.cordoned = false;
    (void)w_.patch(kube::Node::type(), {"", node.name}, {{"spec", {{"unschedulable", nullptr}}}});
  });
}

bool Injector::node_fault(const std::string& kind) {
  const Target target = training_rank();
  World::Node* node = target.node;
  if (node == nullptr) return false;
  record(kind, jobs_on(*node), minutes(3));
  if (kind != "channel-cut" && random_.chance(0.25)) lose_spare(target.job->uid);
  if (kind == "power-off") power_off(*node);
  if (kind == "freeze") {
    node->disturbed = w_.loop_.now();
    node->kubelet->freeze();
    w_.delayed_.after(seconds(30), [node] {
      if (!node->frozen) return;
      node->frozen = false;
      node->memory.clear();
      node->kubelet->power_off();
    });
  }
  if (kind == "partition") {
    // A third of them are over before the node is taken for lost: its ranks have lost their peers all the same.
    const auto drawn = static_cast<int64_t>(random_.below(300));
    partition(*node, seconds(3 + (drawn < 100 ? drawn % 8 : drawn)));
  }
  if (kind == "channel-cut") {
    node->disturbed = w_.loop_.now();
    node->channel_cut = true;
    for (auto& [id, launcher] : node->launchers) {
      launcher->cut();
      // Its peers can't reach it either, but the network that ranks talk over is another one.
      if (launcher->gang() == nullptr || !random_.chance(0.5)) continue;
      const std::string uid = launcher->spec().pod_uid;
      w_.delayed_.after(seconds(5), [this, uid] {
        SimLauncher* silent = w_.launcher_of(uid);
        if (silent != nullptr && silent->gang() != nullptr && silent->slot())
          silent->gang()->unreachable(*silent->slot(), false);
      });
    }
    w_.delayed_.after(seconds(6 + static_cast<int64_t>(random_.below(240))), [node] {
      node->channel_cut = false;
      for (auto& [id, launcher] : node->launchers) {
        if (launcher->gang() != nullptr && launcher->slot()) launcher->gang()->unreachable(*launcher->slot(), true);
      }
    });
  }
  return true;
}

void Injector::quarantine(World::Node& node, Duration length) {
  node.quarantined = true;
  SimAgent(w_.api_, w_.loop_.now()).quarantine(node.name, "xid-79");
  const bool certain = random_.chance(0.5);
  w_.delayed_.after(milliseconds(random_.below(1500)), [this, &node, certain] {
    if (node.quarantined)
      SimAgent(w_.api_, w_.loop_.now()).verdict(node.name, "xid-79", api::HealthAction::kReplace, certain);
  });
  w_.delayed_.after(length, [this, &node] {
    if (!node.quarantined) return;
    node.quarantined = false;
    SimAgent(w_.api_, w_.loop_.now()).release(node.name);
    SimAgent(w_.api_, w_.loop_.now()).no_verdict(node.name);
  });
}

// gpu-fault: a node is quarantined; its ranks may have failed a little before, fail soon, or never.
// contained-error: a verdict that wants a restart. fleet-verdict: every agent has the same to say and none had a token.
bool Injector::verdict(const std::string& kind) {
  const Target target = training_rank();
  World::Node* node = target.node;
  if (node == nullptr || node->quarantined || node->cordoned) return false;
  SimAgent agent(w_.api_, w_.loop_.now());
  if (kind == "fleet-verdict") {
    record(kind, {});
    for (const auto& one : w_.nodes_) agent.verdict(one->name, "driver-broken", api::HealthAction::kReboot, false);
    return true;
  }
  node->accused = w_.loop_.now();
  record(kind, jobs_on(*node), kind == "gpu-fault" ? minutes(6) : seconds(90));
  if (kind == "contained-error") {
    agent.verdict(node->name, "xid-94", api::HealthAction::kRestart, false);
    return true;
  }
  if (random_.chance(0.25)) lose_spare(target.job->uid);
  const Duration length = minutes(3) + seconds(static_cast<int64_t>(random_.below(300)));
  const auto fail = [this, uid = target.launcher->spec().pod_uid] {
    SimLauncher* launcher = w_.launcher_of(uid);
    if (launcher == nullptr || launcher->gang() == nullptr || !launcher->slot() || !launcher->gang()->training())
      return;
    launcher->gang()->rank_exits(*launcher->slot(), ExitKind::kExited, 1, "NCCLError: unhandled cuda error");
  };
  switch (random_.below(3)) {
    case 0:  // seen by the ranks first
      fail();
      w_.delayed_.after(milliseconds(random_.below(2000)), [this, node, length] {
        if (!node->quarantined && !node->cordoned) quarantine(*node, length);
      });
      return true;
    case 1:
      w_.delayed_.after(milliseconds(random_.below(4000)), fail);
      break;
    default:
      break;
  }
  quarantine(*node, length);
  return true;
}

// A node dies, and there is nowhere to go: every free node is cordoned, and the job's spare dies too.
bool Injector::drought() {
  const Target target = training_rank();
  if (target.node == nullptr) return false;
  record("drought", {target.job->uid}, minutes(16));
  const Duration length = minutes(4) + seconds(static_cast<int64_t>(random_.below(400)));
  for (auto& node : w_.nodes_) {
    if (node->launchers.empty()) cordon(*node, length);
    for (const auto& [id, launcher] : node->launchers) {
      if (launcher->job_uid() != target.job->uid || launcher->slot()) continue;
      cordon(*node, length);
      power_off(*node);
      break;
    }
  }
  cordon(*target.node, length);
  power_off(*target.node);
  return true;
}

bool Injector::pod_deleted(bool drain) {
  const Target target = training_rank();
  if (target.launcher == nullptr) return false;
  record(drain ? "drain" : "pod-deleted", {target.job->uid});
  const local::ContainerSpec spec = target.launcher->spec();
  w_.invariants_->excuse_deletion({spec.ns, spec.pod_name});
  if (drain) cordon(*target.node, minutes(5));
  (void)w_.api_.handle({.verb = kube::Verb::kDelete, .type = kube::Pod::type(), .key = {spec.ns, spec.pod_name}});
  return true;
}

// The operator's own network fails: every launcher loses it within a second, and all come back together.
bool Injector::herd() {
  World::OperatorProcess* leader = w_.leader();
  if (leader == nullptr) return false;
  record("herd", {}, seconds(60));
  w_.herd_until_ = w_.loop_.now() + seconds(3 + static_cast<int64_t>(random_.below(22)));
  for (auto& node : w_.nodes_) {
    for (auto& [id, launcher] : node->launchers) {
      if (launcher->server() == leader->channel.get()) launcher->cut();
    }
  }
  // Once half of them are back the rest are judged by second signs.
  w_.delayed_.after(w_.herd_until_ - w_.loop_.now(), [this] {
    for (auto& node : w_.nodes_) node->disturbed = w_.loop_.now();
  });
  return true;
}

bool Injector::suspend() {
  World::Job& job = *w_.jobs_[random_.below(w_.jobs_.size())];
  const auto now = w_.stored(job.uid);
  if (!now || api::terminal(now->status.phase) || now->spec.lifecycle.suspend) return false;
  record("suspend", {job.uid});
  const auto set = [this, name = job.name](bool suspended) {
    (void)w_.patch(api::TrainingJob::type(), {"team", name}, {{"spec", {{"lifecycle", {{"suspend", suspended}}}}}});
  };
  set(true);
  w_.delayed_.after(seconds(20 + static_cast<int64_t>(random_.below(240))), [set] { set(false); });
  return true;
}

bool Injector::leader_fault(const std::string& kind) {
  World::OperatorProcess* leader = w_.leader();
  if (leader == nullptr) return false;
  record(kind, {}, seconds(60));
  if (kind == "leader-killed") {
    w_.kill_operator(*leader);
    w_.delayed_.after(seconds(5 + static_cast<int64_t>(random_.below(40))), [this, leader] {
      if (!leader->process) w_.boot_operator(*leader);
    });
  } else if (kind == "leader-paused") {
    w_.last_pause_ = w_.loop_.now();
    leader->loop->pause();
    // Pings go unanswered; some launchers are slower to notice.
    for (auto& node : w_.nodes_) {
      for (auto& [id, launcher] : node->launchers) {
        if (launcher->server() != leader->channel.get()) continue;
        const std::string uid = launcher->spec().pod_uid;
        w_.delayed_.after(milliseconds(5000 + random_.below(9000)), [this, uid, leader] {
          SimLauncher* late = w_.launcher_of(uid);
          if (late != nullptr && leader->channel && late->server() == leader->channel.get() && leader->loop->paused())
            late->give_up();
        });
      }
    }
    w_.delayed_.after(seconds(4 + static_cast<int64_t>(random_.below(56))), [this, leader] {
      w_.last_pause_ = w_.loop_.now();
      if (leader->loop) leader->loop->resume();
    });
  } else {
    leader->transport->set_connected(false);
    w_.delayed_.after(seconds(4 + static_cast<int64_t>(random_.below(60))), [leader] {
      if (leader->transport) leader->transport->set_connected(true);
    });
  }
  return true;
}

bool Injector::api_fault(const std::string& kind) {
  record(kind, {}, seconds(60));
  for (auto& op : w_.operators_) {
    if (!op->process) continue;
    if (kind == "watches-lost") {
      op->transport->break_watches();
    } else {
      op->api_trouble_until = w_.loop_.now() + seconds(20 + static_cast<int64_t>(random_.below(60)));
    }
  }
  if (kind == "watches-lost") w_.api_.compact();
  return true;
}

}  // namespace pitcrew::simulation
