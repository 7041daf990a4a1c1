#include "operator/execute/capacity.hpp"

#include <algorithm>

namespace pitcrew::control {
namespace {

void take_off(kube::Resources& free, const kube::Resources& amount) {
  for (const auto& [name, value] : amount) free[name] -= value;
}

}  // namespace

void Capacity::node_changed(NodePtr node) {
  const std::string name = node->metadata.name;
  nodes_[name] = std::move(node);
  base_ = nullptr;
}

void Capacity::node_removed(const std::string& name) {
  nodes_.erase(name);
  base_ = nullptr;
}

void Capacity::health_changed(HealthPtr health) {
  const std::string node = health->spec.node_name;
  health_removed(*health);
  health_[node][health->metadata.name] = std::move(health);
  base_ = nullptr;
}

void Capacity::health_removed(const api::NodeHealth& health) {
  for (auto at = health_.begin(); at != health_.end();) {
    if (at->second.erase(health.metadata.name) > 0) base_ = nullptr;
    at = at->second.empty() ? health_.erase(at) : std::next(at);
  }
}

Capacity::HealthPtr Capacity::health_of(const kube::Node& node) const {
  const auto known = health_.find(node.metadata.name);
  if (known == health_.end()) return nullptr;
  const std::string name = api::node_health_name({node.provider_id, node.metadata.uid, node.metadata.name});
  const auto found = known->second.find(name);
  if (found == known->second.end()) return nullptr;
  const api::NodeHealthSpec& spec = found->second->spec;
  return spec.provider_id == node.provider_id && spec.node_uid == node.metadata.uid ? found->second : nullptr;
}

void Capacity::count(const kube::Pod& pod, int sign) {
  const std::string& node = pod.node_name.empty() ? pod.required_node : pod.node_name;
  if (node.empty() || pod.ended()) return;
  kube::Resources& used = used_[node];
  for (const auto& [name, value] : pod.requests) used[name] += sign * value;
  used["pods"] += sign * 1000;
  // Nodes come and go, and their names with them.
  if (used["pods"] <= 0) used_.erase(node);
  base_ = nullptr;
}

void Capacity::set_reserved(const std::string& job_uid, std::map<std::string, kube::Resources> by_node) {
  if (by_node.empty()) {
    reserved_.erase(job_uid);
  } else {
    reserved_[job_uid] = std::move(by_node);
  }
}

std::shared_ptr<const std::vector<NodeView>> Capacity::seen_by(const std::string& job_uid) const {
  if (!base_) {
    auto views = std::make_shared<std::vector<NodeView>>();
    views->reserve(nodes_.size());
    for (const auto& [name, node] : nodes_) {
      NodeView view{node, node->allocatable, health_of(*node)};
      // A node that names no number of pods takes any.
      const bool counts_pods = view.free.contains("pods");
      if (const auto used = used_.find(name); used != used_.end()) take_off(view.free, used->second);
      if (!counts_pods) view.free.erase("pods");
      views->push_back(std::move(view));
    }
    base_ = std::move(views);
  }
  const bool others =
      std::any_of(reserved_.begin(), reserved_.end(), [&](const auto& entry) { return entry.first != job_uid; });
  if (!others) return base_;
  auto views = std::make_shared<std::vector<NodeView>>(*base_);
  for (const auto& [uid, by_node] : reserved_) {
    if (uid == job_uid) continue;
    for (const auto& [name, amount] : by_node) {
      const auto at = std::lower_bound(
          views->begin(), views->end(), name,
          [](const NodeView& view, const std::string& wanted) { return view.node->metadata.name < wanted; });
      if (at != views->end() && at->node->metadata.name == name) take_off(at->free, amount);
    }
  }
  return views;
}

}  // namespace pitcrew::control
