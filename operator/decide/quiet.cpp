#include "operator/decide/quiet.hpp"

namespace pitcrew::control {
namespace {

constexpr Duration kBetweenQuietWrites = seconds(30);

// Compares without copying: 1,024 slots are not copied for every look.
bool same_conditions(const std::vector<Condition>& a, const std::vector<Condition>& b, bool wording) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].type != b[i].type || a[i].status != b[i].status || a[i].reason != b[i].reason) return false;
    if (wording && a[i].message != b[i].message) return false;
  }
  return true;
}

bool same_checkpoints(const api::CheckpointStatus& a, const api::CheckpointStatus& b) {
  return a.durable_step == b.durable_step && a.durable_path == b.durable_path;
}

bool same_marks(const std::map<std::string, Instant>& a, const std::map<std::string, Instant>& b) {
  if (a.size() != b.size()) return false;
  for (auto x = a.begin(), y = b.begin(); x != a.end(); ++x, ++y) {
    if (x->first != y->first) return false;
    if (x->first != mark::kAccounted && x->second != y->second) return false;
  }
  return true;
}

}  // namespace

bool worth_a_write(const Situation& situation) {
  const api::TrainingJobStatus& a = situation.stored;
  const api::TrainingJobStatus& b = situation.status;
  return a.phase != b.phase || a.observed_generation != b.observed_generation ||
         !same_conditions(a.conditions, b.conditions, false) || a.epoch != b.epoch || a.pods != b.pods ||
         a.slots != b.slots || a.next_serial != b.next_serial || !same_checkpoints(a.checkpoint, b.checkpoint) ||
         a.restarts != b.restarts || a.start_time != b.start_time || a.completion_time != b.completion_time ||
         a.requests != b.requests || a.recoveries != b.recoveries || a.failures != b.failures ||
         a.avoided_nodes != b.avoided_nodes || !same_marks(a.marks, b.marks);
}

bool quiet_write_due(Situation& situation) {
  const api::TrainingJobStatus& a = situation.stored;
  const api::TrainingJobStatus& b = situation.status;
  const bool moved = a.progress != b.progress || a.desired != b.desired || a.ready != b.ready || a.spare != b.spare ||
                     a.checkpoint != b.checkpoint || !same_conditions(a.conditions, b.conditions, true);
  const Instant due = situation.marked(mark::kAccounted).value_or(Instant{}) + kBetweenQuietWrites;
  // A running job's steps move between two looks: look again when the next write is due.
  const bool running = situation.stored.phase == api::Phase::kRunning;
  if (moved && situation.now >= due) {
    if (running) situation.wake_at(situation.now + kBetweenQuietWrites);
    return true;
  }
  if (moved || running) situation.wake_at(std::max(due, situation.now + (moved ? seconds(0) : kBetweenQuietWrites)));
  return false;
}

}  // namespace pitcrew::control
