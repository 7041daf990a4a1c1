#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/random.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "lib/local/node/kubelet.hpp"
#include "lib/local/node/node_controller.hpp"
#include "lib/local/node/process_runtime.hpp"
#include "lib/local/node/scheduler.hpp"

namespace pitcrew::cli {

class RunFolder;

struct LocalClusterSettings {
  unsigned nodes = 1;
  std::string programs;               // the folder of pitcrew, pitcrew-launcher and pitcrew-train
  std::string launcher;               // the launcher's path
  Duration frozen_for = seconds(30);  // of a node that chaos has killed, until it is off
};

// A Kubernetes cluster on this machine: an API server in memory, a scheduler, a node controller, and nodes n0, n1 …
// that are processes. Made, used and destroyed on the loop; destroying it ends every node and what runs there.
class LocalCluster {
 public:
  LocalCluster(Loop& loop, const RunFolder& folder, LocalClusterSettings settings, Random random, Logger log);
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;

  local::ApiServer& server() { return server_; }
  // A client's way to the API server that lives as long as the cluster.
  kube::Transport& transport();
  // Boots the nodes.
  void start();
  // Every node is up: what a job should find, or its pods would crowd on the first.
  bool up() const;
  // Whether pods on the node can still end: it is neither off nor standing still.
  bool alive(const std::string& node) const;
  // Ends them, in no hurry for anybody.
  void stop();

  // ---- what chaos does ----
  // Everything on the node stands still in this instant, its memory is lost, and later it goes off. False: no such
  // node, or it is off.
  bool kill_node(const std::string& node);
  // The launcher of a node, and a rank below it; -1 where there is none.
  int launcher_of(const std::string& node) const;
  int rank_of(const std::string& node, uint32_t rank) const;

 private:
  struct Node;
  const Node* find(const std::string& name) const;

  Loop& loop_;
  LocalClusterSettings settings_;
  Logger log_;
  local::ApiServer server_;
  std::vector<std::unique_ptr<local::MemoryTransport>> transports_;
  std::unique_ptr<local::NodeController> node_controller_;
  std::unique_ptr<local::Scheduler> scheduler_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace pitcrew::cli
