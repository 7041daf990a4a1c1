#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/api/training_job.hpp"
#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/runtime/controller.hpp"
#include "lib/kube/runtime/event_recorder.hpp"
#include "operator/channel/channel_hub.hpp"
#include "operator/channel/channel_server.hpp"
#include "operator/repair/check_limit.hpp"
#include "operator/repair/order.hpp"

namespace pitcrew::control {

struct OperatorSettings {
  std::string identity;               // unique to this process: who holds the lease
  std::string ns = "pitcrew-system";  // of the lease and the operator's own events
  std::string watch_namespace;        // of TrainingJobs and pods; empty: all
  std::string lease_name = "pitcrew-operator";
  Duration lease_duration = seconds(10);
  Duration renew_deadline = seconds(7);
  Duration retry_period = milliseconds(1500);
  std::string launcher_image = "ghcr.io/pitcrew/launcher:latest";
  // The Secret that epochs' keys are derived from; at least 32 bytes. Never logged.
  std::string epoch_secret;
  // How many jobs are reconciled at a time, and how many creates of one job are under way at most.
  uint32_t workers = 16;
  uint32_t create_batch_limit = 64;
  // Progress alone is written so often a second at most, over all jobs; changes that matter are not held back.
  double quiet_writes_per_second = 20;
  // To the API server. The lease's client and the token reviews' have limits of their own, so that neither a busy
  // reconcile nor a herd of launchers starves the others.
  double requests_per_second = 200;
  double request_burst = 400;
  double token_reviews_per_second = 500;
  // The lease's own way to the API server, which outlives the operator; null: the one of everything else.
  kube::Transport* lease_transport = nullptr;
  // Repairs and deep checks of nodes.
  RepairMode repair = RepairMode::kNone;
  std::string webhook;      // of RepairMode::kWebhook
  std::string check_image;  // of pitcrew-check; empty: checks are refused
  Duration check_deadline = minutes(30);
  bool check_after_faults = true;  // nodes that are well again and stand idle
  CheckLimit check_limit;
  Status validate() const;
};

// What whoever embeds the operator may want to hear. Called on the loop; every one may be empty.
struct OperatorHooks {
  std::function<void(bool leading, uint64_t term)> leadership;
  // The lease was lost, not given back: somebody else may lead already. After `leadership(false)`.
  std::function<void(const std::string& reason)> lease_lost;
  // A job's status was written: what a live view shows.
  std::function<void(const api::TrainingJob& job)> status_written;
  // A recovery is over: training has gone on, or the job has failed of it.
  std::function<void(const api::TrainingJob& job, const api::Recovery& recovery)> recovered;
  // A launcher's message was accepted.
  std::function<void(const ObjectKey& job, const api::channel::FromLauncher& message)> launcher_message;
  // POSTs JSON to a URL, for RepairMode::kWebhook.
  std::function<void(const std::string& url, const std::string& body, std::function<void(Status)> done)> post;
  // A counter to add to, by its metric's name: "pitcrew_reconciles_total" and so on.
  std::function<void(std::string_view name, double amount)> count;
};

// What metrics are made of, at one moment. What belongs to a leadership is zero without one.
struct OperatorNumbers {
  size_t queued = 0;      // keys that are ready,
  size_t waiting = 0;     // that wait for their time,
  size_t processing = 0;  // and that are being worked on
  Duration longest_running{0};
  kube::WorkQueueMetrics queue;
  kube::ControllerMetrics reconciles;
  kube::ClientMetrics requests;
  kube::EventMetrics events;
  ChannelHubMetrics channel;
  size_t sessions = 0;
  uint64_t token_reviews = 0;
  size_t jobs = 0;  // in the caches
  size_t pods = 0;
  size_t nodes = 0;
  // Entries about jobs and their pods beside the caches, in maps that live as long as the process: of jobs that are
  // gone there are none.
  size_t kept = 0;
};

// The operator: caches of TrainingJobs, pods and nodes, leader election, the control channel, and the reconciler that
// runs decide() for each job and carries its plan out. Everything outside comes in through the constructor and outlives
// it.
//
// A standby keeps its caches warm and sends launchers away; the leader reconciles. A leader that loses its lease stops
// at once: what it has under way is dropped when it returns, launchers are sent away, and it stands for election again
// (a program may rather exit, by the `leadership` hook).
//
// Lives on the loop. Ends by stop(), in order; or by destruction, which drops everything at once, as a crash does.
class Operator {
 public:
  Operator(Loop& loop, kube::Transport& transport, ChannelServer& channel, Random random, Logger log,
           OperatorSettings settings, OperatorHooks hooks = {});
  ~Operator();
  Operator(const Operator&) = delete;

  void start();
  // Not ready any more → queue drained → what of a status is due is written → lease released → watches and sessions
  // closed.
  void stop(std::function<void()> done);

  bool leading() const;
  uint64_t term() const;
  // Caches are filled and it isn't stopping: what /readyz says.
  bool ready() const;
  // Keys waiting or in work: 0 in a quiet world.
  size_t queue_depth() const;
  OperatorNumbers numbers() const;
  bool has_node(const std::string& name) const;
  void for_each_job(const std::function<void(const api::TrainingJob& job)>& function) const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::control
