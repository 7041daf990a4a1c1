#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/api/training_job.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/api_server.hpp"
#include "tests/simulation/training.hpp"

namespace pitcrew::simulation {

class SimLauncher;

// What the invariants need to know of the world beside the API's changes.
struct WorldView {
  std::function<Instant()> now;
  // The launcher of a pod has said hello, and is connected, or was so short a time ago that nobody need have noticed.
  std::function<bool(const std::string& pod_uid)> reachable;
  // The ranks of an epoch train, undisturbed.
  std::function<bool(const std::string& job_uid, EpochId epoch)> training;
  // Something was done to this node within the last ten minutes.
  std::function<bool(const std::string& node)> disturbed;
  // Its agent had something to say against this node within the last ten minutes.
  std::function<bool(const std::string& node)> accused;
  std::function<const api::TrainingJob*(const std::string& job_uid)> stored;
};

// What must hold after every commit and every message, whatever is injected. Each has a name, which planted bugs refer
// to.
class Invariants {
 public:
  explicit Invariants(WorldView view) : view_(std::move(view)) {}

  void changed(const local::Change& change);
  void epoch_accepted(const SimLauncher& launcher, const api::channel::Epoch& epoch);
  void told(const SimLauncher& launcher, const api::channel::ToLauncher& message);
  // An operator asked the API to delete this pod / somebody else did.
  void operator_deletes(const ObjectKey& pod) { operator_deletes_.insert(pod); }
  void excuse_deletion(const ObjectKey& pod) { excused_.insert(pod); }
  void violated(const char* invariant, const std::string& what);

  struct Violation {
    std::string invariant;
    std::string what;
    Instant at;
  };
  const std::vector<Violation>& violations() const { return violations_; }

  // Every recovery that was ever written, with its last rung.
  struct Seen {
    std::string job_uid;
    api::Recovery recovery;
  };
  const std::vector<Seen>& recoveries() const { return recoveries_; }
  uint64_t epochs() const { return epochs_; }

 private:
  struct JobTrack {
    std::vector<Instant> restarts;
  };
  void job_changed(const api::TrainingJob* before, const api::TrainingJob& now);
  void check_epoch(const api::TrainingJob& before, const api::TrainingJob& now);
  void check_table(const api::TrainingJob& job);
  void check_recoveries(const api::TrainingJob& before, const api::TrainingJob& now);
  void check_bounds(const api::TrainingJob& job);
  void pod_changed(const local::Change& change);

  WorldView view_;
  std::map<std::string, JobTrack> jobs_;
  std::map<std::string, std::string> pods_;  // UID → node
  std::set<ObjectKey> operator_deletes_;
  std::set<ObjectKey> excused_;
  std::vector<Violation> violations_;
  std::vector<Seen> recoveries_;
  uint64_t epochs_ = 0;
};

}  // namespace pitcrew::simulation
