#include "operator/app/recovered.hpp"

#include <algorithm>

namespace pitcrew::control {
namespace {

bool over(const api::Recovery& recovery) { return recovery.first_step || recovery.rung == api::Rung::kFailed; }

bool counts(const api::TrainingJobStatus& status, const api::Recovery& recovery) {
  const auto& replay = status.epoch.replay;
  const bool waits = recovery.cause == api::Cause::kUnknown && replay && replay->node == recovery.node;
  return over(recovery) && (!waits || api::terminal(status.phase));
}

}  // namespace

std::vector<api::Recovery> recovered_since(const api::TrainingJobStatus& before, const api::TrainingJobStatus& after) {
  std::vector<api::Recovery> found;
  for (const api::Recovery& recovery : after.recoveries) {
    if (!counts(after, recovery)) continue;
    const bool counted =
        std::any_of(before.recoveries.begin(), before.recoveries.end(), [&](const api::Recovery& other) {
          return counts(before, other) && other.happened == recovery.happened && other.epoch == recovery.epoch;
        });
    if (!counted) found.push_back(recovery);
  }
  return found;
}

}  // namespace pitcrew::control
