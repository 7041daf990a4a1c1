#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "agent/app/config.hpp"
#include "agent/app/journal.hpp"
#include "agent/app/kernel_feed.hpp"
#include "agent/app/ledger.hpp"
#include "agent/app/machine.hpp"
#include "agent/metrics/agent_metrics.hpp"
#include "agent/probe/nvml/xid_events.hpp"
#include "agent/probe/runner/runner.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/net/address.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"

namespace pitcrew::agent {

// How pitcrew-agent ends.
inline constexpr int kExitStopped = 0;
inline constexpr int kExitFailed = 1;            // a port is taken, the machine can't be read …
inline constexpr int kExitBadConfiguration = 2;  // flags, file, surroundings

// What the program's surroundings say beside the file.
struct AgentPlace {
  std::string node;                   // its name
  std::string ns = "pitcrew-system";  // of the agent's DaemonSet
};

struct AgentSettings {
  std::string listen_host;                  // "": every interface
  Duration stop_within = seconds(5);        // of an ordered stop; below terminationGracePeriodSeconds
  Duration names_within = seconds(10);      // how long the kernel log waits for the GPUs' names
  Duration type_within = seconds(5);        // how long probes wait for the node's label with its instance type
  Duration settle = minutes(2);             // on a tainted node about which nothing is remembered
  Duration keep_after = milliseconds(200);  // the journal, after something was judged
  Duration keep_every = seconds(30);        // the journal, where only more of the log was read
  Duration labels_every = seconds(15);      // HyperPod's label, as a reading
  Duration check_every = seconds(60);       // NodeHealth, while a fault waits for a check
};

// pitcrew-agent without its flags: probes and kernel log → ledger → actor, with the journal, metrics and health
// beside them. Judgement begins once the cluster's policies and what was judged before are known; an API server that is
// away only delays it.
//
// Lives on the loop. Ends by stop(), in order: not ready, probes and log closed, journal kept, what is due told to the
// cluster, sockets closed. exit_code() then has a value, and the loop is stopped.
class Agent {
 public:
  Agent(net::AsioLoop& loop, kube::Transport& transport, AgentConfig config, AgentPlace place, AgentSettings settings,
        Random random, Logger log);
  ~Agent();
  Agent(const Agent&) = delete;

  Status start();
  void stop();
  const std::optional<int>& exit_code() const { return exit_code_; }

  // Why it isn't ready, for people; empty: it is.
  std::string not_ready() const;
  net::Address metrics_address() const;
  net::Address health_address() const;
  const AgentMetrics& metrics() const { return metrics_; }

 private:
  HostPaths paths() const;
  Status listen();
  // what the cluster says
  void read_policies();
  void took_policies(Result<kube::Client::RawList> list);
  void saw_node(const kube::Node& node);
  void look_at_labels();
  void take_requests();
  void read_health(const api::NodeHealth* health);
  void restore(const api::NodeHealthStatus& before);
  // what is seen
  bool judges() const;
  void begin();
  void start_feed();
  void start_probes(const std::string& instance_type);
  void poll_probes();
  void observed(std::vector<Observation> observations);
  void judge(std::vector<Observation> observations);
  void wait_for_check();
  bool settled() const;
  void tell();
  // journal and end
  void keep_soon();
  void keep_every();
  void keep();
  void finish(int code);

  net::AsioLoop& loop_;
  const AgentConfig config_;
  const AgentPlace place_;
  const AgentSettings settings_;
  Random random_;
  Logger log_;
  kube::Client client_;
  AgentMetrics metrics_;
  net::ProgramEndpoints endpoints_;

  Boot boot_;
  Instant started_;
  Journal journal_;
  bool keeps_ = true;  // the journal could be written last time
  std::optional<Ledger> ledger_;
  bool history_known_ = false;
  bool remembers_ = false;  // and there was some
  bool policies_known_ = false;
  bool named_ = false;  // GPUs have told their names, or can't
  bool told_settled_ = false;

  InstanceType machine_;
  GpuUsers users_;
  nvml::XidMerge merge_;
  std::shared_ptr<Agent*> self_;  // for probes' threads; null once this is gone
  std::optional<ProbeRunner> probes_;
  size_t probe_count_ = 0;
  std::set<std::string> probes_seen_;
  std::optional<KernelFeed> feed_;
  std::optional<std::string> hyperpod_;  // what its label says, once there was one
  std::unique_ptr<Actor> actor_;

  Loop::TimerPtr probe_timer_, judge_timer_, policy_timer_, keep_timer_, keep_soon_timer_, type_timer_, names_timer_,
      settle_timer_, labels_timer_, check_timer_;
  bool stopping_ = false;
  std::optional<int> exit_code_;
};

}  // namespace pitcrew::agent
