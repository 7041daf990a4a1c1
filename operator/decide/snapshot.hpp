#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/api/node_health.hpp"
#include "lib/api/training_job.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/kube/types/resource_quota.hpp"
#include "operator/decide/launcher_view.hpp"

namespace pitcrew::control {

// A node and what is free on it: allocatable less the requests of every pod bound or pinned there that hasn't ended,
// and less those of serials that OTHER jobs have reserved there (status.pods with a node) and whose pods the cache
// doesn't show yet. decide() itself takes off this job's own reserved serials.
struct NodeView {
  std::shared_ptr<const kube::Node> node;
  kube::Resources free;
  std::shared_ptr<const api::NodeHealth> health;  // of this very instance, by its agent; null: none is known
};

// One requirement of a required node affinity's term.
struct NodeRequirement {
  std::string key;
  std::string operation;  // In, NotIn, Exists, DoesNotExist, Gt, Lt
  std::vector<std::string> values;
};

// What every pod of the job needs of a node, as the executor's pod builder makes it: the template's and the launcher's.
struct PodShape {
  kube::Resources requests;
  kube::Resources limits;  // all containers' together
  std::map<std::string, std::string> node_selector;
  std::vector<std::vector<NodeRequirement>> affinity;  // required terms: one of them must hold; empty: any node
  std::vector<kube::Toleration> tolerations;
  uint32_t processes = 1;        // ranks of a pod: processesPerReplica, the pod's GPUs, or 1
  Duration grace = seconds(30);  // terminationGracePeriodSeconds
};

// A node all of whose launchers are silent now, whatever job they belong to; for the herd rule.
struct SilentNode {
  std::string node;
  Instant since;  // when the last of them was heard
};

struct PodView {
  Serial serial;  // label::kSerial
  std::shared_ptr<const kube::Pod> pod;
};

// Everything that one decision about one job rests on, taken at one moment from the caches and the channel.
struct Snapshot {
  std::shared_ptr<const api::TrainingJob> job;                     // spec and status as cached
  std::vector<PodView> pods;                                       // controlled by this job's UID, by serial
  std::shared_ptr<const std::vector<NodeView>> nodes;              // all of the cluster
  std::vector<std::shared_ptr<const kube::ResourceQuota>> quotas;  // of the job's namespace
  bool has_budget = false;                                         // its PodDisruptionBudget is there
  PodShape shape;
  std::string pod_refused;              // why the API server takes no pod of the job, where it said so for good
  std::vector<LauncherView> launchers;  // of this job's pods

  Term term;              // the leader's: the Lease's transitions
  Instant leading_since;  // when this leader began to accept launchers

  // The whole channel's, over all jobs.
  uint32_t connected_nodes = 0;          // nodes with a launcher that answers
  std::vector<SilentNode> silent_nodes;  // that have been silent for at most ten minutes

  // Ports that an epoch's MASTER_PORT is drawn from.
  uint32_t port_first = 20'000;
  uint32_t port_last = 29'999;

  // False while a write of ours isn't in the caches yet, or a cache isn't synced: nothing is decided then.
  bool settled = true;
};

}  // namespace pitcrew::control
