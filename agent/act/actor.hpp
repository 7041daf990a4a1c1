#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "agent/act/plan.hpp"
#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"

namespace pitcrew::kube {
class Transport;
}

namespace pitcrew::agent {

struct ActorSettings {
  std::string node;           // the name of the node that this agent is on
  std::string daemon_set_ns;  // of the agent's own DaemonSet, whose size is the number of agents; empty: not known
  std::string daemon_set;
  std::optional<api::CordonBudgetSpec> budget;  // is made so where there is none; nothing: nobody makes one here
  ActSettings act;
  double requests_per_second = 5;
  double request_burst = 20;
  Duration timeout = seconds(10);  // of one request
  Duration retry_first = milliseconds(500);
  Duration retry_limit = seconds(30);
};

// What is written or read for a plan, each with a back-off of its own: one that the cluster refuses holds no other up.
enum class Errand { kNode, kReadBudget, kTakeToken, kCountCordon, kCondition, kEvent, kReadHealth, kHealth };
inline constexpr size_t kErrands = 8;
std::string_view to_string(Errand errand);

struct ActorNumbers {
  struct PerErrand {
    uint64_t done = 0;
    uint64_t failed = 0;
  };
  std::array<PerErrand, kErrands> errands;
  uint64_t cordons = 0;
  uint64_t uncordons = 0;
  uint64_t events_dropped = 0;  // too many, or refused
  bool refused = false;         // the node is unhealthy and the budget has no token
  bool held = false;            // people hold the node as it is
  bool quarantined = false;     // our taint is on it
};

// Called on the loop; every one may be empty.
struct ActorHooks {
  std::function<void(const kube::Node& node)> node;  // it was seen, or has changed
  // Its NodeHealth was read; null: there is none yet.
  std::function<void(const api::NodeHealth* health)> health;
  // The node was cordoned, so long after the fault was first seen.
  std::function<void(const Verdict& fault, Duration after)> cordoned;
};

// Carries plans out: watches its own node, and makes it, its NodeHealth, the Events and the CordonBudget's entry agree
// with the newest findings, one request at a time and the most urgent first. Before the node is changed it is read
// again. What fails is tried again with what is true by then, so that a fault that went while the API was away cordons
// nothing.
//
// Lives on the loop; the transport outlives it. Ends by destruction at once, or after finish().
class Actor {
 public:
  Actor(Loop& loop, kube::Transport& transport, uint64_t seed, ActorSettings settings, ActorHooks hooks, Logger log);
  ~Actor();
  Actor(const Actor&) = delete;

  void start();
  // What judgement says now, in the place of what it said before.
  void found(Findings findings);
  // Its NodeHealth is read again: somebody else may have written into it.
  void read_health_again();
  // Tells `done` once all that can be done is done, or `limit` has passed.
  void finish(Duration limit, std::function<void()> done);

  // Why the cluster is not known yet or can't be written, for people; empty: it can.
  std::string not_ready() const;
  ActorNumbers numbers() const;
  // The node as it was last seen; null: not yet, or there is none.
  const kube::Node* node() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::agent
