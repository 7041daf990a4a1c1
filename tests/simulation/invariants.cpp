#include "tests/simulation/invariants.hpp"

#include <algorithm>

#include "tests/simulation/launcher.hpp"

namespace pitcrew::simulation {
namespace {

EpochId id_of(const api::TrainingJobStatus& status) { return {status.epoch.term, status.epoch.number}; }

std::string text_of(EpochId id) { return std::to_string(id.term.value) + "/" + std::to_string(id.number.value); }

}  // namespace

void Invariants::violated(const char* invariant, const std::string& what) {
  if (violations_.size() < 20) violations_.push_back({invariant, what, view_.now()});
}

void Invariants::changed(const local::Change& change) {
  if (change.resource.kind == "Pod") return pod_changed(change);
  if (change.resource.kind != "TrainingJob" || change.type == kube::WatchEventType::kDeleted) return;
  const auto now = change.object.as<api::TrainingJob>();
  if (!now) return violated("status-decodes", now.error().message);
  if (change.old.empty()) return job_changed(nullptr, **now);
  const auto before = change.old.as<api::TrainingJob>();
  if (!before) return violated("status-decodes", before.error().message);
  job_changed(before->get(), **now);
}

void Invariants::job_changed(const api::TrainingJob* before, const api::TrainingJob& now) {
  if (before == nullptr || before->status == now.status) return;
  const std::string& name = now.metadata.name;
  if (api::terminal(before->status.phase)) {
    violated("terminal-stays-terminal",
             name + " is " + std::string(api::to_string(before->status.phase)) + " and its status is written again");
  }
  if (id_of(now.status) < id_of(before->status) || now.status.epoch.number < before->status.epoch.number) {
    violated("epochs-only-grow",
             name + " goes from epoch " + text_of(id_of(before->status)) + " to " + text_of(id_of(now.status)));
  }
  if (now.status.next_serial < before->status.next_serial) violated("serials-only-grow", name);
  if (id_of(now.status) != id_of(before->status)) {
    ++epochs_;
    check_epoch(*before, now);
  } else if (!now.status.slots.empty() && now.status.slots != before->status.slots) {
    violated("one-table-per-epoch", name + " changes the table of epoch " + text_of(id_of(now.status)));
  }
  check_table(now);
  check_recoveries(*before, now);
  check_bounds(now);
}

void Invariants::check_epoch(const api::TrainingJob& before, const api::TrainingJob& now) {
  const std::string epoch = now.metadata.name + " epoch " + text_of(id_of(now.status));
  if (now.status.epoch.number <= before.status.epoch.number) violated("epochs-only-grow", epoch);
  if (now.status.slots.size() != now.spec.replicas) {
    violated("whole-gang", epoch + " has " + std::to_string(now.status.slots.size()) + " of " +
                               std::to_string(now.spec.replicas) + " slots");
  }
  for (const api::SlotStatus& slot : now.status.slots) {
    const std::string where = epoch + ", slot " + std::to_string(slot.slot.value);
    const auto pod = pods_.find(slot.pod_uid);
    if (pod == pods_.end()) continue;  // its deletion may have come between
    if (pod->second.empty()) violated("whole-gang", where + " is not bound");
    if (!view_.reachable(slot.pod_uid)) violated("whole-gang", where + " is not connected");
  }
}

void Invariants::check_table(const api::TrainingJob& job) {
  std::set<uint32_t> slots, serials;
  for (const api::SlotStatus& slot : job.status.slots) {
    if (!slots.insert(slot.slot.value).second)
      violated("one-pod-per-slot",
               job.metadata.name + ": slot " + std::to_string(slot.slot.value) + " is in the table twice");
    if (!serials.insert(slot.serial.value).second)
      violated("one-pod-per-slot",
               job.metadata.name + ": pod " + std::to_string(slot.serial.value) + " holds two slots");
  }
  std::set<uint32_t> reserved, held;
  for (const api::PodRecord& record : job.status.pods) {
    if (!reserved.insert(record.serial.value).second)
      violated("one-pod-per-slot",
               job.metadata.name + ": serial " + std::to_string(record.serial.value) + " is reserved twice");
    if (record.slot && !held.insert(record.slot->value).second)
      violated("one-pod-per-slot",
               job.metadata.name + ": slot " + std::to_string(record.slot->value) + " has two pods");
    if (record.serial >= job.status.next_serial)
      violated("serials-only-grow", job.metadata.name + ": a serial above the next one is reserved");
  }
}

void Invariants::check_recoveries(const api::TrainingJob& before, const api::TrainingJob& now) {
  const std::string& uid = now.metadata.uid;
  if (now.status.recoveries.empty()) return;
  const api::Recovery& newest = now.status.recoveries.front();
  const bool fresh = before.status.recoveries.empty() || before.status.recoveries.front().detected != newest.detected ||
                     before.status.recoveries.front().happened != newest.happened;
  if (!fresh) {
    for (auto seen = recoveries_.rbegin(); seen != recoveries_.rend(); ++seen) {
      if (seen->job_uid != uid) continue;
      seen->recovery = newest;
      break;
    }
    return;
  }
  recoveries_.push_back({uid, newest});
  const std::string what =
      now.metadata.name + ": " + std::string(api::to_string(newest.cause)) + " (" + newest.evidence + ")";
  const bool of_agent =
      (newest.cause == api::Cause::kGpuFault || newest.evidence.find("simulated") != std::string::npos) &&
      view_.accused(newest.node);
  if (newest.cause != api::Cause::kPlanned && !of_agent && view_.training(uid, id_of(before.status))) {
    violated("healthy-gang-is-left-alone", what + " while its ranks train");
  }
  if (newest.cause == api::Cause::kNodeLoss && !view_.disturbed(newest.node)) {
    violated("healthy-node-is-not-lost", what + ", and nothing was done to the node");
  }
  if (newest.rung == api::Rung::kFailed || newest.cause == api::Cause::kPlanned) return;
  auto& restarts = jobs_[uid].restarts;
  restarts.push_back(view_.now());
  const api::Limit& limit = now.spec.recovery.restarts;
  const auto within = std::count_if(restarts.begin(), restarts.end(),
                                    [&](Instant at) { return view_.now() - at < limit.window - seconds(1); });
  if (within > static_cast<int64_t>(limit.count)) {
    violated("restarts-within-limits", now.metadata.name + ": restart " + std::to_string(within) + " where " +
                                           std::to_string(limit.count) + " are allowed");
  }
}

void Invariants::check_bounds(const api::TrainingJob& job) {
  const api::TrainingJobStatus& status = job.status;
  if (status.recoveries.size() > 10 || status.failures.size() > 256 || status.requests.size() > 10 ||
      status.marks.size() > 16 || status.conditions.size() > 8 ||
      status.avoided_nodes.size() > job.spec.recovery.avoid_limit ||
      status.pods.size() > job.spec.replicas + job.spec.spares) {
    violated("status-is-bounded", job.metadata.name);
  }
}

void Invariants::pod_changed(const local::Change& change) {
  const auto pod = change.object.as<kube::Pod>();
  if (!pod) return;
  const kube::Pod& now = **pod;
  pods_[now.metadata.uid] = now.node_name;
  const OwnerReference* owner = now.metadata.controller();
  const api::TrainingJob* job = owner == nullptr ? nullptr : view_.stored(owner->uid);
  if (job == nullptr) return;
  const auto serial = now.metadata.labels.find(api::label::kSerial);
  if (serial == now.metadata.labels.end()) return;
  const Serial number(static_cast<uint32_t>(std::stoul(serial->second)));
  const auto& records = job->status.pods;
  const bool reserved = std::any_of(records.begin(), records.end(),
                                    [&](const api::PodRecord& record) { return record.serial == number; });

  if (change.type == kube::WatchEventType::kAdded && number >= job->status.next_serial) {
    violated("serial-before-pod", "pod " + now.metadata.name + " is created before its serial is reserved");
  }
  const auto before = change.old.empty() ? Result<std::shared_ptr<const kube::Pod>>(Error(Code::kNotFound, ""))
                                         : change.old.as<kube::Pod>();
  const bool began = change.type == kube::WatchEventType::kDeleted ? !now.deleting()
                                                                   : now.deleting() && before && !(*before)->deleting();
  if (!began || !operator_deletes_.contains(change.key) || excused_.contains(change.key)) return;
  if (reserved && !api::terminal(job->status.phase) && !job->metadata.deletion_time) {
    violated("only-unreserved-pods-are-deleted",
             "an operator deletes pod " + now.metadata.name + ", whose serial is reserved");
  }
}

void Invariants::epoch_accepted(const SimLauncher& launcher, const api::channel::Epoch& epoch) {
  const api::TrainingJob* job = view_.stored(launcher.job_uid());
  if (job == nullptr) return;
  const std::string what = job->metadata.name + " epoch " + text_of(epoch.id) + " at pod " + launcher.spec().pod_name;
  const EpochId stored = id_of(job->status);
  if (stored < epoch.id) return violated("committed-before-sent", what + ", the stored one is " + text_of(stored));
  if (stored != epoch.id || job->status.slots.empty()) return;
  for (const api::channel::TableEntry& entry : epoch.table) {
    const auto& slots = job->status.slots;
    const bool same = std::any_of(slots.begin(), slots.end(), [&](const api::SlotStatus& slot) {
      return slot.slot == entry.slot && api::pod_name(*job, slot.serial) == entry.pod_name;
    });
    if (!same) violated("one-table-per-epoch", what + " says another table than the stored one");
  }
  if (!epoch.slot) return;
  for (const api::SlotStatus& slot : job->status.slots) {
    if (slot.slot == *epoch.slot && slot.pod_uid != launcher.spec().pod_uid)
      violated("one-pod-per-slot", what + " is not the pod of its slot");
  }
}

void Invariants::told(const SimLauncher& launcher, const api::channel::ToLauncher& message) {
  const api::TrainingJob* job = view_.stored(launcher.job_uid());
  if (job == nullptr) return;
  const api::TrainingJobStatus& status = job->status;
  if (const auto* stop = std::get_if<api::channel::Stop>(&message)) {
    bool asked = api::terminal(status.phase) || status.slots.empty() || id_of(status) > stop->epoch;
    for (const auto& [name, time] : status.marks) asked = asked || name == "interrupted" || name.starts_with("stop/");
    if (!asked)
      violated("stops-follow-the-status",
               job->metadata.name + ": pod " + launcher.spec().pod_name + " is stopped without a stored reason");
  }
  if (std::holds_alternative<api::channel::Finish>(message) && !api::terminal(status.phase)) {
    violated("stops-follow-the-status",
             job->metadata.name + ": pod " + launcher.spec().pod_name + " is told to finish before the job is over");
  }
}

}  // namespace pitcrew::simulation
