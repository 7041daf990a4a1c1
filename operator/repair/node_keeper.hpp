#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/runtime/event_recorder.hpp"
#include "operator/repair/check.hpp"

namespace pitcrew::control {

struct NodeKeeperSettings {
  RepairMode repair = RepairMode::kNone;
  std::string webhook;  // of kWebhook
  CheckSettings check;
  std::string identity;          // of its events
  Duration every = seconds(10);  // all nodes are looked at
  Duration prune = minutes(5);   // old entries of the CordonBudget are taken out
  Status validate() const;
};

// What the keeper works on; its owner outlives it.
struct NodeKeeperWorld {
  // Calls the function for every NodeHealth there is.
  std::function<void(const std::function<void(const NodeCare&, const CheckPod&)>&)> for_each;
  std::function<bool()> may_act;
  // POSTs a body, and tells how that went. Empty: webhooks can't be called.
  std::function<void(const std::string& url, const std::string& body, std::function<void(Status)> done)> post;
};

// The leader's hand for nodes: looks at all of them every few seconds and makes what is there agree with what should
// be, one call for each node at a time. Every call may be repeated; nothing is remembered but what was posted and told.
// Made when the lease is won, destroyed when it is lost. Lives on the loop.
class NodeKeeper {
 public:
  NodeKeeper(Loop& loop, kube::Transport& transport, uint64_t seed, NodeKeeperSettings settings, NodeKeeperWorld world,
             Logger log);
  ~NodeKeeper();
  NodeKeeper(const NodeKeeper&) = delete;

  void start();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::control
