#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/object_meta.hpp"

namespace pitcrew::api {

struct CordonBudgetSpec {
  uint32_t max_nodes = 3;
  double max_fraction = 0.2;  // of the nodes that have an agent
  Duration window = minutes(5);
  bool operator==(const CordonBudgetSpec&) const = default;
};

// A cordon by a node's agent.
struct Cordon {
  std::string provider_id;  // the instance; empty where the cloud gives none
  std::string node_uid;
  Instant time;
  std::string fault;     // the rule's name
  bool certain = false;  // it took no token; it counts all the same
  bool operator==(const Cordon&) const = default;
};

// How many nodes agents may cordon by themselves within a time, so that a fault that shows on the whole fleet (a
// driver, a wrong rule) does not take the fleet away. Cluster-scoped; the one that counts is called kName. `spec` is
// people's. In `status` each agent writes the entry under its own node's name and no other, with the resourceVersion
// that it judged by, so that of two agents that want the last token one reads again. Old entries are taken out by the
// operator's leader.
struct CordonBudget {
  static constexpr char kName[] = "default";
  static constexpr size_t kMaxCordons = 4096;
  static const ResourceType& type();

  ObjectMeta metadata;
  CordonBudgetSpec spec;
  std::map<std::string, Cordon> cordons;  // by the node's name
  bool operator==(const CordonBudget&) const = default;

  Json encode() const;
  // Decodes and validates; the error names every problem.
  static Result<CordonBudget> decode(const Json& json);
};

CordonBudget decode_cordon_budget(const Json& json, Problems& problems);
void validate(const CordonBudget& budget, Problems& problems);

// Why `node` must not be cordoned for a fault that takes a token: with it, more than maxNodes and more than maxFraction
// of the nodes would have been cordoned within the window, certain faults among them. Nothing where it may go ahead. A
// node counts once, however often it was cordoned. `agents`: nodes that have or should have an agent (the DaemonSet's
// desiredNumberScheduled); where it isn't known, 0, maxNodes alone decides.
std::optional<std::string> cordon_refusal(const CordonBudget& budget, const std::string& node, uint32_t agents,
                                          Instant now);

// The nodes whose entries are older than the window and no longer count.
std::vector<std::string> expired_cordons(const CordonBudget& budget, Instant now);

}  // namespace pitcrew::api
