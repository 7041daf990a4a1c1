#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/judge/judge.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/node_health.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/kube/types/node.hpp"

namespace pitcrew::agent {

struct ActSettings {
  bool shadow = false;                  // everything but keeping pods away: no taint, no cordon
  Duration heartbeat = minutes(5);      // the condition is written anew this often though nothing has changed
  Duration text_every = seconds(30);    // where only its words have
  Duration counts_every = seconds(60);  // NodeHealth, where only counts and the agent's memory have
  Duration rates_every = seconds(10);   // NodeHealth, where only rates have
  Duration budget_fresh = seconds(5);   // a CordonBudget read longer ago is read again before it is judged by
  Duration budget_retry = seconds(30);  // after a refusal
  Status validate() const;
};

// What judgement has come to.
struct Findings {
  bool settled = false;  // what was before is known, or enough was seen since: "no fault" may be believed
  std::vector<Verdict> verdicts;
  std::vector<api::HealthEvent> history;  // oldest first, bounded
  std::string boot_id;
  std::vector<api::GpuIdentity> gpus;
  std::vector<api::DeviceRate> rates;
  std::string memory;
};

// What the cluster has, as far as it is known.
struct Standing {
  kube::Node node;
  std::string health_read;                // the name of the NodeHealth that was asked for; empty: none yet
  std::optional<api::NodeHealth> health;  // nothing: there is none
  std::optional<Instant> budget_read;
  std::optional<api::CordonBudget> budget;  // nothing: there is none
  uint32_t agents = 0;                      // nodes that have or should have one; 0: not known
  std::optional<Instant> cordon_counted;    // of the cordon that is in the budget already
  Instant condition_written;                // by this process
  Instant health_written;
  std::set<std::string> told;  // names of events that are there
};

// A change of the node, made by one patch of what the API server has at that moment.
struct NodeChange {
  std::optional<std::string> label;  // to be set; "": to be removed
  std::optional<bool> taint;
  std::optional<std::string> annotation;  // as the label
  bool cordon = false;
  bool uncordon = false;  // where managedFields still name us
  bool operator==(const NodeChange&) const = default;
};

struct Plan {
  std::optional<NodeChange> node;
  bool read_budget = false;                 // before the node may be cordoned
  std::optional<api::Cordon> take_token;    // with the version that was read; the cordon follows
  std::optional<api::Cordon> count_cordon;  // of a certain fault
  std::optional<kube::NodeCondition> condition;
  std::vector<kube::Event> events;
  bool read_health = false;
  std::optional<api::NodeHealth> health;  // to be created, or its status to be patched
  std::optional<Instant> wake;            // when to plan again though nothing happens
  std::string refused;                    // why the node is not cordoned though it is unhealthy; for logs and metrics

  bool idle() const;
};

// What is to be done so that the cluster agrees with the findings; nothing where it does. Pure. It is carried out in
// the order of Plan's members, and planned anew after each write.
Plan plan(const Findings& findings, const Standing& standing, const ActSettings& settings, Instant now);

// The annotation kCordoned: "2026-03-01T02:14:07.250Z xid-79", or "… xid-95 (token)" where the fault was not certain.
struct CordonNote {
  Instant time;
  std::string rule;
  bool certain = true;
};
std::string to_string(const CordonNote& note);
std::optional<CordonNote> parse_cordon_note(const std::string& text);

// What takes back all that agents have put on a node; no change where there is nothing. The cordon is undone only where
// node_patch() finds that it is still ours.
NodeChange taking_back(const kube::Node& node);

// Whether people hold the node as it is.
bool held(const kube::Node& node);
const kube::NodeCondition* health_condition(const kube::Node& node);
// An event about the node whose name follows from `key`: written twice, it is there once.
kube::Event event_about(const kube::Node& node, const std::string& key, const std::string& type,
                        const std::string& reason, const std::string& action, const std::string& note, Instant time);

}  // namespace pitcrew::agent
