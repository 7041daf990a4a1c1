#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/kube/cache/informer.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::local {

// What a test may make of the scheduler; the defaults make a good one.
struct SchedulerFaults {
  std::function<Duration(const kube::Pod&)> late;     // how long a pod waits before it is looked at
  std::function<bool(const kube::Pod&)> passes_over;  // asked at every attempt: true leaves the pod alone this time
};

// Binds pods to nodes as kube-scheduler does, as far as a TrainingJob's pods need it: Ready, unschedulable, taints, the
// pin by required affinity, node selector and requests; the emptiest node by pods wins. A pod that fits nowhere gets
// PodScheduled False with the reason, once per reason. Lives on the loop.
class Scheduler {
 public:
  Scheduler(Loop& loop, kube::Transport& transport, uint64_t seed, SchedulerFaults faults = {}, Logger log = {});
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;

  void start();
  // Somebody else's pods took this much of a node; nothing gives it back.
  void rob(const std::string& node, kube::Resources amount);

 private:
  void wake();
  void pass();
  void consider(const std::shared_ptr<const kube::Pod>& pod);
  // Empty: it fits.
  std::string refusal(const kube::Pod& pod, const kube::Node& node) const;
  void say_unschedulable(const kube::Pod& pod, const std::string& message);
  void account(const kube::Pod& pod, int sign);
  void unassume(const std::string& uid);

  Loop& loop_;
  SchedulerFaults faults_;
  Logger log_;
  kube::Client client_;
  kube::Informer<kube::Node> nodes_;
  kube::Informer<kube::Pod> pods_;
  std::map<std::string, kube::Resources> used_;
  std::map<std::string, int> pod_count_;
  std::map<std::string, kube::Resources> robbed_;
  std::map<std::string, std::shared_ptr<const kube::Pod>> assumed_;  // by UID: bound by us, and not yet seen bound
  std::map<std::string, Instant> not_before_;                        // pod UID, of late ones
  bool awake_ = false;
  Loop::TimerPtr timer_;
  std::shared_ptr<Scheduler*> self_;
};

}  // namespace pitcrew::local
