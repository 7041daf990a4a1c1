#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "lib/base/delayed.hpp"
#include "lib/base/random.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "lib/local/node/kubelet.hpp"
#include "lib/local/node/node_controller.hpp"
#include "lib/local/node/scheduler.hpp"
#include "lib/local/node/simulated_runtime.hpp"
#include "operator/app/operator.hpp"
#include "operator/channel/memory_channel.hpp"
#include "tests/simulation/invariants.hpp"
#include "tests/simulation/launcher.hpp"
#include "tests/simulation/pausable_loop.hpp"

namespace pitcrew::simulation {

struct WorldSettings {
  uint64_t seed = 1;
  std::function<void(const std::string&)> trace;  // empty: none
  bool operator_logs = false;                     // into the trace
};

// A fault that was injected, and what it hit.
struct FaultRecord {
  std::string kind;
  Instant at;
  std::set<std::string> jobs;     // UIDs; empty: possibly all
  Duration effect = seconds(90);  // a recovery that is detected within this counts as its consequence
};

// One seed's world: an API server, a node controller and a scheduler, at least twelve nodes with kubelets and simulated
// launchers, two operators of which one leads, and three jobs or more with spares; an hour of virtual time with at
// least eight faults, then quiet. Everything lives on one virtual loop; the same seed gives the same run.
class World {
 public:
  explicit World(WorldSettings settings);
  ~World();
  World(const World&) = delete;

  void run();

  const Invariants& invariants() const { return *invariants_; }
  const std::vector<FaultRecord>& faults() const { return faults_; }
  std::string outcome() const;  // of each job, in words

  struct Node {
    std::string name;
    std::unique_ptr<local::MemoryTransport> transport;
    std::unique_ptr<local::SimulatedRuntime> runtime;
    std::unique_ptr<local::Kubelet> kubelet;
    std::map<std::string, std::unique_ptr<SimLauncher>> launchers;  // by container id
    std::map<std::string, PodMemory> memory;                        // by pod UID
    bool frozen = false;
    bool partitioned = false;
    bool channel_cut = false;
    bool cordoned = false;
    std::optional<Instant> disturbed;
    bool quarantined = false;
    std::optional<Instant> accused;  // by its agent
  };
  struct OperatorProcess {
    std::string name;
    std::unique_ptr<PausableLoop> loop;
    std::unique_ptr<local::MemoryTransport> transport;
    std::unique_ptr<control::MemoryChannelServer> channel;
    std::unique_ptr<control::Operator> process;  // null: not running
    Instant api_trouble_until;
  };
  struct Job {
    std::string name;
    std::string uid;
    Program program;
    std::map<EpochId, std::unique_ptr<Gang>> gangs;
  };

 private:
  friend class Injector;

  void make_nodes();
  void make_jobs();
  void boot_operator(OperatorProcess& op);
  void kill_operator(OperatorProcess& op);
  OperatorProcess* leader();
  local::RequestFault request_fault(OperatorProcess& op, const kube::Request& request);
  local::WatchFault watch_fault(OperatorProcess& op);
  control::MemoryChannelServer* server_for(const std::string& node);
  Gang* gang_of(const api::channel::Epoch& epoch);
  Gang* present_gang(const Job& job) const;
  SimLauncher* launcher_of(const std::string& pod_uid);
  void container_started(Node& node, const local::ContainerSpec& spec);
  void container_gone(Node& node, const std::string& id);
  std::shared_ptr<const api::TrainingJob> stored(const std::string& job_uid) const;
  Result<Json> patch(const ResourceType& type, const ObjectKey& key, Json patch);
  bool run_until(Instant time);
  void heal_everything();
  void check_end();
  void check_quiet();
  void trace(const std::string& line) const;

  WorldSettings settings_;
  VirtualLoop loop_;
  std::vector<std::unique_ptr<PausableLoop>>
      ended_loops_;  // launchers' ends of their operators' connections still stand on them
  Random random_;
  Random fault_random_;
  local::ApiServer api_;
  local::MemoryTransport own_transport_;
  std::unique_ptr<local::NodeController> controller_;
  std::unique_ptr<local::Scheduler> scheduler_;
  LauncherWorld launcher_world_;
  std::unique_ptr<Invariants> invariants_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<std::unique_ptr<OperatorProcess>> operators_;
  std::vector<FaultRecord> faults_;
  std::map<std::string, SimLauncher*> launchers_;  // by pod UID
  std::map<std::string, std::shared_ptr<const api::TrainingJob>> stored_;
  std::map<std::string, Instant> gone_;  // pod UID: when its last launcher ended
  Instant herd_until_;
  std::optional<Instant> last_pause_;
  Delayed delayed_;
};

}  // namespace pitcrew::simulation
