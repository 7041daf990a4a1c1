#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/api/node_health.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "operator/decide/snapshot.hpp"

namespace pitcrew::control {

// What is free on each node, kept up as pods and nodes come and go: allocatable less the requests of all pods that are
// bound or pinned there and haven't ended, less what jobs have reserved there for pods that no cache shows yet. Pure;
// fed by the operator's informers, asked once per reconcile.
class Capacity {
 public:
  using NodePtr = std::shared_ptr<const kube::Node>;
  using HealthPtr = std::shared_ptr<const api::NodeHealth>;

  void node_changed(NodePtr node);
  void node_removed(const std::string& name);
  // A NodeHealth counts for the node whose instance and UID it names, and no other of that name.
  void health_changed(HealthPtr health);
  void health_removed(const api::NodeHealth& health);
  HealthPtr health_of(const kube::Node& node) const;
  void pod_added(const kube::Pod& pod) { count(pod, 1); }
  void pod_removed(const kube::Pod& pod) { count(pod, -1); }
  // In the place of what the job had reserved before; empty: nothing.
  void set_reserved(const std::string& job_uid, std::map<std::string, kube::Resources> by_node);

  // Jobs that have reserved something.
  size_t reserving() const { return reserved_.size(); }
  // Nodes that pods take something of.
  size_t in_use() const { return used_.size(); }

  // All nodes by name, as the job sees them: its own reservations are not taken off.
  std::shared_ptr<const std::vector<NodeView>> seen_by(const std::string& job_uid) const;

 private:
  void count(const kube::Pod& pod, int sign);

  std::map<std::string, NodePtr> nodes_;
  std::map<std::string, std::map<std::string, HealthPtr>> health_;  // node → NodeHealth's name → it
  std::map<std::string, kube::Resources> used_;
  std::map<std::string, std::map<std::string, kube::Resources>> reserved_;  // job UID → node → amount
  mutable std::shared_ptr<const std::vector<NodeView>> base_;               // without reservations; null: count again
};

}  // namespace pitcrew::control
