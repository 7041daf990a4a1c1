#include "operator/execute/snapshot_builder.hpp"

#include <algorithm>
#include <charconv>

namespace pitcrew::control {
namespace {

std::optional<Serial> serial_of(const kube::Pod& pod) {
  const auto label = pod.metadata.labels.find(api::label::kSerial);
  if (label == pod.metadata.labels.end()) return std::nullopt;
  uint32_t value = 0;
  const char* end = label->second.data() + label->second.size();
  const auto [stopped, error] = std::from_chars(label->second.data(), end, value);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return Serial(value);
}

}  // namespace

void SnapshotBuilder::pod_changed(const kube::Pod* before, const kube::Pod* now) {
  if (before != nullptr) capacity_.pod_removed(*before);
  if (now != nullptr) capacity_.pod_added(*now);
  if (before != nullptr && now != nullptr) return;
  const OwnerReference* owner = (before != nullptr ? before : now)->metadata.controller();
  if (owner != nullptr && latest_.contains(owner->uid)) unsettled_.insert(owner->uid);
}

void SnapshotBuilder::job_changed(const JobPtr& job) {
  const std::string& uid = job->metadata.uid;
  const auto known = latest_.find(uid);
  if (known != latest_.end() && known->second->status.pods == job->status.pods &&
      known->second->status.phase == job->status.phase &&
      known->second->metadata.generation == job->metadata.generation) {
    known->second = job;
    return;
  }
  latest_[uid] = job;
  unsettled_.insert(uid);
}

void SnapshotBuilder::job_removed(const api::TrainingJob& job) {
  capacity_.set_reserved(job.metadata.uid, {});
  shapes_.erase(job.metadata.uid);
  refused_.erase(job.metadata.uid);
  latest_.erase(job.metadata.uid);
  unsettled_.erase(job.metadata.uid);
}

void SnapshotBuilder::pod_refused(const std::string& job_uid, std::string why) {
  if (why.empty()) {
    refused_.erase(job_uid);
  } else if (latest_.contains(job_uid)) {
    refused_[job_uid] = std::move(why);
  }
}

void SnapshotBuilder::quota_changed(const ObjectKey& key, const std::shared_ptr<const kube::ResourceQuota>& quota) {
  if (quota) {
    quotas_[key] = quota;
  } else {
    quotas_.erase(key);
  }
}

void SnapshotBuilder::budget_changed(const kube::DisruptionBudget& budget, bool gone) {
  const OwnerReference* owner = budget.metadata.controller();
  if (owner == nullptr) return;
  if (!gone) {
    budgets_[owner->uid] = budget.metadata.uid;
  } else if (const auto known = budgets_.find(owner->uid);
             known != budgets_.end() && known->second == budget.metadata.uid) {
    budgets_.erase(known);
  }
}

Result<const PodShape*> SnapshotBuilder::shape_of(const api::TrainingJob& job) {
  const auto known = shapes_.find(job.metadata.uid);
  if (known != shapes_.end() && known->second.generation == job.metadata.generation) return &known->second.shape;
  PITCREW_ASSIGN(PodShape shape, control::shape_of(job, settings_));
  Shape& kept = shapes_[job.metadata.uid];
  kept = {job.metadata.generation, std::move(shape)};
  return &kept.shape;
}

// The job that asks may stay unsettled: its own reservations are not taken off.
void SnapshotBuilder::settle_reservations(const std::string& except_uid) {
  for (auto it = unsettled_.begin(); it != unsettled_.end();) {
    if (*it == except_uid) {
      ++it;
      continue;
    }
    const std::string uid = *it;
    it = unsettled_.erase(it);
    const JobPtr& job = latest_.at(uid);
    std::map<std::string, kube::Resources> reserved;
    const auto shape = shape_of(*job);
    if (shape && !api::terminal(job->status.phase)) {
      for (const api::PodRecord& record : job->status.pods) {
        if (record.node.empty() || pods_.get({job->metadata.ns, api::pod_name(*job, record.serial)})) continue;
        kube::Resources& amount = reserved[record.node];
        for (const auto& [name, value] : (*shape)->requests) amount[name] += value;
      }
    }
    capacity_.set_reserved(uid, std::move(reserved));
  }
}

Result<Snapshot> SnapshotBuilder::build(const JobPtr& job, Term term, Instant leading_since) {
  const std::string& uid = job->metadata.uid;
  job_changed(job);
  settle_reservations(uid);
  PITCREW_ASSIGN(const PodShape* shape, shape_of(*job));
  Snapshot snapshot;
  snapshot.job = job;
  snapshot.shape = *shape;
  for (const auto& pod : pods_.by_index(kByController, uid)) {
    // An owner reference is anybody's to write: what has another name, or lies elsewhere, is not of our making.
    const auto serial = serial_of(*pod);
    if (!serial || pod->metadata.ns != job->metadata.ns || pod->metadata.name != api::pod_name(*job, *serial)) continue;
    snapshot.pods.push_back({*serial, pod});
  }
  std::sort(snapshot.pods.begin(), snapshot.pods.end(),
            [](const PodView& a, const PodView& b) { return a.serial < b.serial; });
  snapshot.nodes = capacity_.seen_by(uid);
  if (const auto refused = refused_.find(uid); refused != refused_.end()) snapshot.pod_refused = refused->second;
  snapshot.has_budget = has_budget(uid);
  for (auto quota = quotas_.lower_bound({job->metadata.ns, ""});
       quota != quotas_.end() && quota->first.ns == job->metadata.ns; ++quota) {
    snapshot.quotas.push_back(quota->second);
  }
  snapshot.launchers = channel_.launchers_of(uid);
  snapshot.term = term;
  snapshot.leading_since = leading_since;
  snapshot.connected_nodes = channel_.connected_nodes();
  snapshot.silent_nodes = channel_.silent_nodes();
  return snapshot;
}

}  // namespace pitcrew::control
