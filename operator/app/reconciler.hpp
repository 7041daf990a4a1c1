#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/cache/informer.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/client/rate_limiter.hpp"
#include "lib/kube/runtime/controller.hpp"
#include "lib/kube/runtime/event_recorder.hpp"
#include "lib/kube/runtime/expectations.hpp"
#include "operator/app/operator.hpp"
#include "operator/channel/channel_hub.hpp"
#include "operator/execute/executor.hpp"
#include "operator/execute/snapshot_builder.hpp"

namespace pitcrew::control {

using JobInformer = kube::Informer<api::TrainingJob>;
using PodInformer = kube::Informer<kube::Pod>;
using NodeInformer = kube::Informer<kube::Node>;
using QuotaInformer = kube::Informer<kube::ResourceQuota>;
using BudgetInformer = kube::Informer<kube::DisruptionBudget>;
using HealthInformer = kube::Informer<api::NodeHealth>;

// What outlives a leadership and every reconciler works on.
struct ReconcilerWorld {
  Loop& loop;
  kube::Transport& transport;
  JobInformer& jobs;
  PodInformer& pods;
  NodeInformer& nodes;
  QuotaInformer& quotas;
  BudgetInformer& budgets;
  ChannelHub& channel;
  SnapshotBuilder& snapshots;
};

// One leadership's work: for each job that something has happened to, snapshot → decide() → Executor, until there is
// nothing to do. Made when the lease is won, destroyed when it is lost, and all that it has under way with it. Lives on
// the loop.
class Reconciler {
 public:
  Reconciler(ReconcilerWorld world, const OperatorSettings& settings, const OperatorHooks& hooks, Term term,
             std::function<bool()> may_act, Random random, Logger log);
  Reconciler(const Reconciler&) = delete;

  // Every job is looked at once; from then on the handlers below say which.
  void start();
  // Takes no more work; `done` when what runs has finished and events are written.
  void stop(std::function<void()> done);

  void enqueue(const ObjectKey& job, int priority = kube::priority::kNormal) { controller_.enqueue(job, priority); }
  // One of many events of a job, a launcher's or a pod's: those of a large gang that come within a moment are one
  // reconcile. The first is not kept waiting.
  void enqueue_event(const ObjectKey& job, int priority);
  // Jobs that wait for room or for a node to come back.
  void enqueue_waiting();
  void enqueue_all(int priority);
  void pod_seen(const ObjectKey& job, const kube::Pod& pod, bool gone);
  void budget_seen(const ObjectKey& job, const kube::DisruptionBudget& budget);
  // A job that the API server took and that can't be run: its people hear why.
  void invalid(const kube::ObjectReference& job, const std::string& why);
  void job_gone(const api::TrainingJob& job);
  // Whether this version of the job is one that this reconciler wrote itself.
  bool own_write(const api::TrainingJob& job) const;

  size_t depth() const;
  void fill(OperatorNumbers& numbers) const;
  Term term() const { return term_; }

 private:
  using JobPtr = Executor::JobPtr;
  using Done = kube::Controller::Done;

  void reconcile(const ObjectKey& key, Done done);
  JobPtr newest(const ObjectKey& key);
  void forget(const ObjectKey& key);
  // Nothing where the caches show all that was done; else what to do instead of deciding.
  bool wait_for_caches(const ObjectKey& key, const JobPtr& job, const Done& done);
  void list_live(const ObjectKey& key, const JobPtr& job, const Done& done);
  void act(const ObjectKey& key, const JobPtr& job, Plan plan, Done done);
  void patch_channel(const JobPtr& job, const Snapshot& snapshot);
  std::optional<Duration> hold_back(const JobPtr& job, const Plan& plan);
  void count(std::string_view name, double amount = 1) const;
  void tell_recovered(const api::TrainingJobStatus& before, const api::TrainingJob& job) const;

  ReconcilerWorld world_;
  const OperatorHooks& hooks_;
  Term term_;
  Instant leading_since_;
  std::function<bool()> may_act_;
  Logger log_;
  std::string channel_json_;
  std::string channel_mark_;  // as the cache shows it
  kube::Client client_;
  kube::EventRecorder events_;
  kube::Expectations expectations_;
  Executor executor_;
  kube::RateLimiter quiet_writes_;
  std::map<ObjectKey, JobPtr> written_;            // answers of status writes that the cache may not show yet
  std::map<ObjectKey, Instant> began_;             // the last reconcile
  std::map<ObjectKey, kube::RateLimiter> writes_;  // of one job: a decision that never comes to rest is slowed down
  std::set<ObjectKey> waiting_;
  std::set<std::string> patched_;  // pod UIDs whose channel.json is being written
  kube::Controller controller_;    // last: destroyed first
};

}  // namespace pitcrew::control
