#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lib/api/cordon_budget.hpp"
#include "lib/api/node_health.hpp"
#include "lib/api/training_job.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/resource_quota.hpp"

namespace pitcrew::cli {

struct Ended {
  int exit_code = 0;
  std::string reason;  // OOMKilled, Error
  std::string message;
  std::optional<Instant> finished;
};

struct ContainerFact {
  std::string name;
  std::string image;
  bool init = false;
  bool through =
      false;  // an init container that nothing waits for any more: it ended well, or is a sidecar that started
  bool running = false;
  std::optional<Instant> started;  // while it runs
  int restarts = 0;
  std::string waiting_reason;
  std::string waiting_message;
  std::optional<Ended> ended;
  std::optional<Ended> last_ended;
  std::optional<std::vector<std::string>> last_lines;  // of an init container that others wait for; unset: not read
};

struct PodFact {
  std::string name;
  std::string uid;
  std::string node;
  std::string phase = "Pending";
  std::string reason;
  std::string message;
  bool scheduled = true;
  std::string unschedulable;  // the scheduler's message
  std::optional<Instant> created;
  std::optional<Instant> deleted;
  std::vector<ContainerFact> containers;
  std::vector<std::string> claims;  // PersistentVolumeClaims that it mounts
  uint16_t metrics_port = 0;
};

struct EventFact {
  Instant time;
  std::string object;  // "Pod/llama-8b-1f2e3-4"
  std::string type;    // Normal, Warning
  std::string reason;
  std::string note;
  int64_t count = 1;
};

struct ClaimFact {
  std::string name;
  bool exists = true;
  std::string phase;  // Bound, Pending, Lost
  std::string storage_class;
};

// Who leads, as the operator's Lease says.
struct OperatorFact {
  std::string ns;
  std::string holder;  // empty: nobody
  Duration duration{0};
  std::optional<Instant> renewed;
};

// Another TrainingJob that isn't over, and how many pods it holds.
struct OtherJob {
  std::string ns;
  std::string name;
  std::string phase;
  uint32_t pods = 0;
};

// What the launchers' /metrics say of one rank.
struct RankFact {
  uint32_t rank = 0;
  std::string pod;
  uint64_t step = 0;
  std::string phase;
  bool in_collective = false;
  double collective = 0;
  std::map<std::string, double> gauges;  // data_wait_seconds …
};

// What a node's agent says on /metrics of the GPUs that the job's pods use there, and of the node's EFA devices.
struct NodeNumbers {
  std::string node;
  size_t gpus = 0;
  double least_free = 1;               // of the GPU with the least free memory, its share
  std::optional<double> tensor;        // share of time in which tensor cores worked, the GPUs' mean; not all can tell
  size_t efa = 0;                      // EFA devices
  double efa_sent = 0, efa_again = 0;  // bytes since the driver was loaded
};

// Everything that diagnose judges by. A value: tests write it down, gather() fills it from a cluster.
struct Facts {
  Instant now;
  api::TrainingJob job;
  Problems job_problems;  // of its spec, as this version reads it
  std::vector<PodFact> pods;
  std::vector<kube::Node> nodes;
  std::vector<api::NodeHealth> health;
  std::optional<api::CordonBudget> budget;  // the breaker of the agents' cordons
  std::vector<EventFact> events;            // of the job, its pods and claims; oldest first
  std::vector<kube::ResourceQuota> quotas;
  std::vector<ClaimFact> claims;
  std::vector<OtherJob> other_jobs;  // of the namespaces that may be read
  std::vector<OperatorFact> operators;
  bool operators_known = false;  // leases could be read
  bool nodes_known = false;
  std::vector<RankFact> ranks;
  std::vector<NodeNumbers> numbers;     // of the job's nodes that have an agent
  std::vector<std::string> last_lines;  // of the rank that failed last
  std::string last_lines_of;            // "pod x, rank 3"
  bool container_before = false;        // they are of the container before the one that runs now
  std::string save_error;               // why the trainer's newest durable save failed, where one is overdue
  std::vector<std::string> unseen;      // what couldn't be read, and why
  std::string kubectl = "kubectl";      // with the flags that lead to this cluster and namespace
  std::string pitcrew = "pitcrew";
};

// The container port of that name in a pod's spec; 0: none.
uint16_t port_called(const Json& spec, std::string_view wanted);
PodFact read_pod(const Json& pod);
// The init container that all other containers of the pod wait for. Null: none, or the pod is over.
const ContainerFact* initializing(const PodFact& pod);
std::optional<EventFact> read_event(const Json& event);
// What a launcher's /metrics page says of its ranks.
std::vector<RankFact> read_ranks(const std::string& page, const std::string& pod);
// What an agent's /metrics page says of a node. pods: the job's there; GPUs of other pods don't count.
NodeNumbers read_numbers(const std::string& page, const std::string& node, const std::set<std::string>& pods);

}  // namespace pitcrew::cli
