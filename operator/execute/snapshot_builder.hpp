#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "lib/api/training_job.hpp"
#include "lib/kube/cache/store.hpp"
#include "lib/kube/types/disruption_budget.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/kube/types/resource_quota.hpp"
#include "operator/channel/channel_hub.hpp"
#include "operator/decide/snapshot.hpp"
#include "operator/execute/capacity.hpp"
#include "operator/execute/pod_builder.hpp"

namespace pitcrew::control {

// The index of the pod store that snapshots are built from.
inline constexpr char kByController[] = "controller-uid";

// Takes the snapshot that decide() works on from the caches and the channel. Told by the informers' handlers what has
// changed, so that a snapshot costs what its own job is large, not what the cluster is. Lives on the loop, as long as
// the stores.
class SnapshotBuilder {
 public:
  using JobPtr = std::shared_ptr<const api::TrainingJob>;

  SnapshotBuilder(const kube::Store<api::TrainingJob>& jobs, const kube::Store<kube::Pod>& pods,
                  const ChannelHub& channel, PodBuilderSettings settings)
      : jobs_(jobs), pods_(pods), channel_(channel), settings_(std::move(settings)) {}

  void node_changed(const std::shared_ptr<const kube::Node>& node) { capacity_.node_changed(node); }
  void node_removed(const kube::Node& node) { capacity_.node_removed(node.metadata.name); }
  void health_changed(const std::shared_ptr<const api::NodeHealth>& health) { capacity_.health_changed(health); }
  void health_removed(const api::NodeHealth& health) { capacity_.health_removed(health); }
  std::shared_ptr<const api::NodeHealth> health_of(const kube::Node& node) const { return capacity_.health_of(node); }
  // Null: there was or is none.
  void pod_changed(const kube::Pod* before, const kube::Pod* now);
  void job_changed(const JobPtr& job);
  void job_removed(const api::TrainingJob& job);
  // Null: it is gone.
  void quota_changed(const ObjectKey& key, const std::shared_ptr<const kube::ResourceQuota>& quota);
  void budget_changed(const kube::DisruptionBudget& budget, bool gone);
  // Why the API server takes no pod of the job; empty: it does.
  void pod_refused(const std::string& job_uid, std::string why);
  // Entries of jobs, in all that is kept of them.
  size_t kept() const {
    return refused_.size() + budgets_.size() + shapes_.size() + latest_.size() + unsettled_.size() +
           capacity_.reserving();
  }
  bool has_budget(const std::string& job_uid) const { return budgets_.contains(job_uid); }

  // `job` may be newer than the store's. An error where the job's template can't be read as a pod.
  Result<Snapshot> build(const JobPtr& job, Term term, Instant leading_since);

 private:
  struct Shape {
    int64_t generation = 0;
    PodShape shape;
  };
  Result<const PodShape*> shape_of(const api::TrainingJob& job);
  void settle_reservations(const std::string& except_uid);

  const kube::Store<api::TrainingJob>& jobs_;
  const kube::Store<kube::Pod>& pods_;
  const ChannelHub& channel_;
  PodBuilderSettings settings_;
  Capacity capacity_;
  std::map<ObjectKey, std::shared_ptr<const kube::ResourceQuota>> quotas_;
  std::map<std::string, std::string> refused_;  // job UID → why
  std::map<std::string, std::string> budgets_;  // job UID → the budget's UID
  std::map<std::string, Shape> shapes_;         // by job UID
  std::map<std::string, JobPtr> latest_;        // by job UID: whose reservations count
  std::set<std::string> unsettled_;             // job UIDs whose reservations may have changed
};

}  // namespace pitcrew::control
