#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "cli/connect/cluster.hpp"
#include "cli/show/document.hpp"
#include "cli/show/terminal.hpp"
#include "lib/api/node_health.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::cli {

struct FleetFacts {
  Instant now;
  std::vector<kube::Node> nodes;
  std::vector<api::NodeHealth> health;
  std::vector<kube::Pod> pods;  // of all namespaces, or of those that may be seen
  std::vector<std::string> unseen;
};

// One node as a line.
struct NodeRow {
  std::string name;
  std::string instance;  // type
  std::string state;     // Ready, NotReady, Silent, Cordoned, Tainted
  std::string health;    // healthy, the first fault's rule, or - without an agent
  int64_t gpus = 0;
  int64_t gpus_used = 0;
  std::vector<std::string> jobs;  // namespace/name
  std::string why;
  bool usable = true;
};
std::vector<NodeRow> rows_of(const FleetFacts& facts);  // the unusable first, then by name
std::string print_nodes(const FleetFacts& facts, const Terminal& terminal, bool wide);
// Everything about one; empty where there is no such node.
std::string print_node(const FleetFacts& facts, const std::string& name, const Terminal& terminal);

// `pitcrew nodes [NODE]`.
int show_nodes(Cluster& cluster, const std::string& node, Format format, const Terminal& terminal, std::ostream& out,
               std::ostream& err);
// `pitcrew check node NODE`: asks for a deep check of the node and waits for its result.
int check_node(Cluster& cluster, const std::string& node, Duration patience, std::ostream& out, std::ostream& err);

}  // namespace pitcrew::cli
