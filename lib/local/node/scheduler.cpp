#include "lib/local/node/scheduler.hpp"

#include <algorithm>

namespace pitcrew::local {
namespace {

bool tolerates(const kube::Pod& pod, const kube::Taint& taint) {
  return std::any_of(pod.tolerations.begin(), pod.tolerations.end(), [&](const kube::Toleration& toleration) {
    if (!toleration.effect.empty() && toleration.effect != taint.effect) return false;
    if (toleration.key.empty()) return toleration.operation == "Exists";
    return toleration.key == taint.key && (toleration.operation == "Exists" || toleration.value == taint.value);
  });
}

}  // namespace

Scheduler::Scheduler(Loop& loop, kube::Transport& transport, uint64_t seed, SchedulerFaults faults, Logger log)
    : loop_(loop),
      faults_(std::move(faults)),
      log_(std::move(log)),
      client_(loop, transport, mix64(seed)),
      nodes_(loop, transport, mix64(seed + 1), {}, {}, log_),
      pods_(loop, transport, mix64(seed + 2), {}, {}, log_),
      self_(std::make_shared<Scheduler*>(this)) {
  kube::Informer<kube::Node>::Handler nodes;
  nodes.on_add = [this](const auto&, bool) { wake(); };
  nodes.on_update = [this](const auto&, const auto&) { wake(); };
  nodes_.add_handler(std::move(nodes));
  kube::Informer<kube::Pod>::Handler pods;
  pods.on_add = [this](const auto& pod, bool) {
    account(*pod, 1);
    wake();
  };
  pods.on_update = [this](const auto& old, const auto& now) {
    account(*old, -1);
    account(*now, 1);
    if (!now->node_name.empty()) unassume(now->metadata.uid);
    if (old->ended() != now->ended() || (now->node_name.empty() && old->metadata.uid != now->metadata.uid)) wake();
  };
  pods.on_delete = [this](const auto& last, bool) {
    account(*last, -1);
    unassume(last->metadata.uid);
    not_before_.erase(last->metadata.uid);
    wake();
  };
  pods_.add_handler(std::move(pods));
}

Scheduler::~Scheduler() { *self_ = nullptr; }

void Scheduler::start() {
  nodes_.start();
  pods_.start();
}

void Scheduler::rob(const std::string& node, kube::Resources amount) {
  for (const auto& [name, value] : amount) robbed_[node][name] += value;
}

void Scheduler::account(const kube::Pod& pod, int sign) {
  if (pod.node_name.empty() || pod.ended()) return;
  kube::Resources& used = used_[pod.node_name];
  for (const auto& [name, value] : pod.requests) used[name] += sign * value;
  pod_count_[pod.node_name] += sign;
}

void Scheduler::wake() {
  if (awake_) return;
  awake_ = true;
  loop_.post([self = self_] {
    if (*self == nullptr) return;
    (*self)->awake_ = false;
    (*self)->pass();
  });
}

void Scheduler::pass() {
  if (!nodes_.synced() || !pods_.synced()) return;
  timer_.reset();
  std::vector<std::shared_ptr<const kube::Pod>> pending;
  pods_.store().for_each([&](const auto& pod) {
    if (pod->node_name.empty() && !pod->deleting() && !pod->ended() && !assumed_.contains(pod->metadata.uid))
      pending.push_back(pod);
  });
  std::optional<Instant> next;
  for (const auto& pod : pending) {
    if (faults_.late) {
      const auto [entry, fresh] = not_before_.try_emplace(pod->metadata.uid, loop_.now());
      if (fresh) entry->second = loop_.now() + faults_.late(*pod);
      if (entry->second > loop_.now()) {
        next = std::min(next.value_or(entry->second), entry->second);
        continue;
      }
    }
    if (faults_.passes_over && faults_.passes_over(*pod)) {
      next = std::min(next.value_or(loop_.now() + seconds(5)), loop_.now() + seconds(5));
      continue;
    }
    consider(pod);
  }
  if (next) timer_ = loop_.after(*next - loop_.now(), [this] { wake(); });
}

std::string Scheduler::refusal(const kube::Pod& pod, const kube::Node& node) const {
  const std::string& name = node.metadata.name;
  if (!pod.required_node.empty() && pod.required_node != name)
    return "node(s) didn't match Pod's node affinity/selector";
  for (const auto& [key, value] : pod.node_selector) {
    const auto label = node.metadata.labels.find(key);
    if (label == node.metadata.labels.end() || label->second != value)
      return "node(s) didn't match Pod's node affinity/selector";
  }
  if (node.unschedulable) return "node(s) were unschedulable";
  if (!node.ready()) return "node(s) were not ready";
  for (const kube::Taint& taint : node.taints) {
    if (taint.effect != "PreferNoSchedule" && !tolerates(pod, taint))
      return "node(s) had untolerated taint {" + taint.key + "}";
  }
  const auto amount = [&](const std::map<std::string, kube::Resources>& of, const std::string& resource) -> int64_t {
    const auto node_amounts = of.find(name);
    if (node_amounts == of.end()) return 0;
    const auto found = node_amounts->second.find(resource);
    return found == node_amounts->second.end() ? 0 : found->second;
  };
  for (const auto& [resource, wanted] : pod.requests) {
    const auto allocatable = node.allocatable.find(resource);
    const int64_t has = allocatable == node.allocatable.end() ? 0 : allocatable->second;
    if (wanted > has - amount(used_, resource) - amount(robbed_, resource)) return "Insufficient " + resource;
  }
  return "";
}

void Scheduler::consider(const std::shared_ptr<const kube::Pod>& pod) {
  std::map<std::string, int> refusals;
  std::string best;
  int best_count = 0;
  nodes_.store().for_each([&](const auto& node) {
    const std::string why = refusal(*pod, *node);
    if (!why.empty()) {
      ++refusals[why];
      return;
    }
    const int count = pod_count_[node->metadata.name];
    if (best.empty() || count < best_count) {
      best = node->metadata.name;
      best_count = count;
    }
  });
  if (best.empty()) {
    std::string message = "0/" + std::to_string(nodes_.store().size()) + " nodes are available";
    for (const auto& [why, count] : refusals)
      message += (message.find(':') == std::string::npos ? ": " : ", ") + std::to_string(count) + " " + why;
    return say_unschedulable(*pod, message + ".");
  }
  // Counted as there until the watch shows it, so that the next pod sees the room that is left.
  auto assumed = std::make_shared<kube::Pod>(*pod);
  assumed->node_name = best;
  assumed_[pod->metadata.uid] = assumed;
  account(*assumed, 1);
  client_.bind(pod->metadata.key(), pod->metadata.uid, best, [this, uid = pod->metadata.uid](Status bound) {
    if (bound) return;
    unassume(uid);
    if (bound.error().code != Code::kNotFound) timer_ = loop_.after(seconds(1), [this] { wake(); });
  });
}

void Scheduler::unassume(const std::string& uid) {
  const auto assumed = assumed_.find(uid);
  if (assumed == assumed_.end()) return;
  account(*assumed->second, -1);
  assumed_.erase(assumed);
}

void Scheduler::say_unschedulable(const kube::Pod& pod, const std::string& message) {
  if (pod.unschedulable_message == message) return;
  kube::Patch patch;
  patch.subresource = "status";
  patch.preconditions.uid = pod.metadata.uid;
  patch.body = {{"status",
                 {{"conditions", Json::array({{{"type", "PodScheduled"},
                                               {"status", "False"},
                                               {"reason", "Unschedulable"},
                                               {"message", message},
                                               {"lastTransitionTime", to_rfc3339(loop_.now())}}})}}}};
  client_.patch<kube::Pod>(pod.metadata.key(), std::move(patch), [](Result<kube::Ptr<kube::Pod>>) {});
}

}  // namespace pitcrew::local
