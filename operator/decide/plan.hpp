#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/api/channel.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::control {

// A pod whose serial is reserved in status.pods: creating it may be repeated, AlreadyExists is success where the pod is
// this job's.
struct CreatePod {
  Serial serial;
  std::optional<Slot> slot;  // unset: a spare
  std::string node;          // required node affinity; empty: anywhere (capacity: Provision)
  bool operator==(const CreatePod&) const = default;
};

// Checked live: the executor reads the job first and does nothing where its resourceVersion isn't
// Plan::resource_version, then deletes with the UID as precondition.
struct DeletePod {
  std::string name;
  std::string uid;
  std::string reason;  // for the event and the log
  bool force = false;  // its node is gone: grace period 0
  bool operator==(const DeletePod&) const = default;
};

struct SendMessage {
  std::string pod_name;
  std::string pod_uid;
  api::channel::ToLauncher message;  // Epoch::key is empty here: the executor derives it
};

// An event for people, about the job. Written after the status write that it goes with has succeeded.
struct Notice {
  bool warning = false;
  std::string reason;  // CamelCase
  std::string action;  // what Pitcrew does about it, CamelCase
  std::string message;
  bool operator==(const Notice&) const = default;
};

// What to do now. Either one status write, and nothing but its events, or any of the other parts: everything that is
// created, deleted or sent follows from a status that is stored already. The reconcile that does it is started by the
// write's answer.
struct Plan {
  std::string resource_version;                  // of the job that it was made for
  std::optional<api::TrainingJobStatus> status;  // the whole new status, written with resource_version
  std::vector<CreatePod> creates;
  std::vector<DeletePod> deletes;
  std::vector<SendMessage> messages;
  std::vector<Notice> events;
  bool create_budget = false;   // the job's PodDisruptionBudget, which goes with the job
  bool delete_job = false;      // ttlAfterFinished is over; checked live like a pod's deletion
  std::optional<Instant> wake;  // decide again no later than this, whatever happens
  std::string waiting;          // for logs: what the job waits for; empty: nothing, it runs or is over

  bool acts() const {
    return status || !creates.empty() || !deletes.empty() || !messages.empty() || create_budget || delete_job;
  }
};

}  // namespace pitcrew::control
