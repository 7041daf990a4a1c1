#pragma once

#include <map>
#include <memory>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/kube/client/client.hpp"

namespace pitcrew::local {

struct NodeControllerSettings {
  Duration grace =
      seconds(40);  // of silence, then Ready is Unknown (kube-controller-manager's node-monitor-grace-period)
  Duration evict_after =
      minutes(5);  // from then on, pods are deleted (the default toleration of not-ready and unreachable)
};

// The node's conditions with Ready set to this; others stay.
Json conditions_with_ready(const Json& node, const std::string& status, const std::string& reason,
                           const std::string& message, Instant now);
bool has_unreachable_taint(const Json& node);
Json taints_without_unreachable(const Json& node);

// What kube-controller-manager does about nodes that fall silent: Ready becomes Unknown with the taint
// unreachable:NoExecute, later the node's pods get a deletion time; they stay Terminating until the node is back or
// they are deleted by force. Kubelets say `heard` and `silent` themselves instead of renewing leases, so that a quiet
// world costs nothing.
class NodeController {
 public:
  NodeController(Loop& loop, kube::Transport& transport, uint64_t seed, NodeControllerSettings settings = {},
                 Logger log = {});
  ~NodeController();
  NodeController(const NodeController&) = delete;

  void heard(const std::string& node);
  void silent(const std::string& node);

 private:
  void mark(const std::string& node);
  void mark_again(const std::string& node);
  void write_mark(const std::string& node, const Json& object);
  void evict(const std::string& node);

  Loop& loop_;
  NodeControllerSettings settings_;
  Logger log_;
  kube::Client client_;
  std::map<std::string, Loop::TimerPtr> silent_;
};

}  // namespace pitcrew::local
