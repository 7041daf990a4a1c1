#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "operator/decide/plan.hpp"
#include "operator/decide/snapshot.hpp"

namespace pitcrew::control {

// Names of status.marks.
namespace mark {
inline constexpr char kAccounted[] = "accounted";  // goodput is counted up to here; also the last status write
inline constexpr char kGang[] = "gang";            // the gang's serials were reserved; its pods are being waited for
inline constexpr char kInterrupted[] = "interrupted";  // the epoch is over; the next isn't committed
inline constexpr char kFirstRunning[] = "first-running";
inline constexpr char kNotBefore[] = "not-before";      // after a release: no new gang before this
inline constexpr char kStopSuspend[] = "stop/suspend";  // ranks were told to save and stop, and why
inline constexpr char kStopDeadline[] = "stop/deadline";
inline constexpr char kDrain[] = "drain";  // a node of the gang is being taken away: first seen
inline constexpr char kStopDrain[] = "stop/drain";
inline constexpr char kStopFault[] = "stop/fault";  // the same for a node that its agent calls unhealthy
inline constexpr char kRestart[] = "restart";       // when the newest verdict came for which the job was restarted
inline constexpr char kSpare[] = "spare";           // a spare was last reserved
}  // namespace mark

// A reserved serial and what is there of it now.
struct Member {
  const api::PodRecord* record = nullptr;
  const kube::Pod* pod = nullptr;          // null: the cache has none
  const LauncherView* launcher = nullptr;  // null: never said hello to this leader
  const kube::Node* node = nullptr;        // where it is bound or pinned; null: unknown or gone

  // The pod is of no more use: deleted, being deleted, or ended.
  bool pod_lost() const { return pod != nullptr && (pod->deleting() || pod->ended()); }
  bool bound() const { return pod != nullptr && !pod->node_name.empty(); }
  // Bound, and its launcher answers: it may take part in an epoch.
  bool connected() const {
    return bound() && !pod_lost() && launcher != nullptr && launcher->connected && !launcher->silent_since;
  }
};

// The snapshot with what the policies look up in it, and the status as it will be: policies change `status` and add to
// `events`, `wake` and `waiting`. Lives for one decide().
class Situation {
 public:
  Situation(const Snapshot& snapshot, Instant now);

  const Snapshot& in;
  const Instant now;
  const api::TrainingJob& job;
  const api::TrainingJobSpec& spec;
  const api::TrainingJobStatus& stored;

  api::TrainingJobStatus status;
  std::vector<Notice> events;
  std::string waiting;

  void wake_at(Instant time);
  std::optional<Instant> wake() const { return wake_; }
  void notice(bool warning, std::string reason, std::string action, std::string message);

  const NodeView* node_view(const std::string& name) const;
  const kube::Node* node(const std::string& name) const;
  const kube::Pod* pod(Serial serial) const;
  const LauncherView* launcher(const std::string& pod_uid) const;

  // By the new status.
  Member member(const api::PodRecord& record) const;
  std::optional<Member> member_of(Slot slot) const;
  std::vector<Member> spares() const;
  bool gang_connected() const;
  // What is missing of it, for people: "slot 3 (pod x-1, node b): not connected".
  std::string missing() const;

  std::optional<Instant> marked(const std::string& name) const;
  void set_mark(const std::string& name) { status.marks[name] = now; }
  void clear_mark(const std::string& name) { status.marks.erase(name); }

  // An epoch's ranks are meant to run.
  bool epoch_active() const { return !status.slots.empty() && !marked(mark::kInterrupted); }
  EpochId epoch() const { return {status.epoch.term, status.epoch.number}; }
  bool hello_grace_over() const;

 private:
  std::optional<Instant> wake_;
  // Into the snapshot; a gang of hundreds is looked up in many times over.
  std::unordered_map<std::string_view, const NodeView*> nodes_;
  std::unordered_map<std::string_view, const LauncherView*> launchers_;  // by pod UID
  std::unordered_map<Serial, const kube::Pod*> pods_;
  // Where in status.pods a slot was last found: policies change that list, so each is looked at before it counts.
  mutable std::vector<size_t> found_at_;
};

// "<n> of <m>", lists and plurals for messages.
std::string list_of(const std::vector<std::string>& words, size_t at_most = 4);

}  // namespace pitcrew::control
