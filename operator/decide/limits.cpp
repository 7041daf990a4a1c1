#include "operator/decide/limits.hpp"

#include <algorithm>
#include <set>

namespace pitcrew::control {
namespace {

constexpr size_t kMaxFailures = 256;

}  // namespace

uint32_t failures_since(const Situation& situation, Duration window) {
  std::set<Instant> restarts;  // several nodes lost at one time are one restart
  for (const api::FailureRecord& failure : situation.status.failures) {
    if (failure.cause != api::Cause::kPlanned && situation.now - failure.time < window) restarts.insert(failure.time);
  }
  return static_cast<uint32_t>(restarts.size());
}

uint32_t failures_on_node(const Situation& situation, api::Cause cause, const std::string& node, Duration window) {
  const auto& failures = situation.status.failures;
  return static_cast<uint32_t>(std::count_if(failures.begin(), failures.end(), [&](const api::FailureRecord& failure) {
    return failure.cause == cause && failure.node == node && situation.now - failure.time < window;
  }));
}

void record_failure(Situation& situation, api::FailureRecord failure) {
  auto& failures = situation.status.failures;
  const Duration widest = std::max(situation.spec.recovery.restarts.window, situation.spec.recovery.in_place.window);
  std::erase_if(failures, [&](const api::FailureRecord& old) { return situation.now - old.time >= widest; });
  failures.push_back(std::move(failure));
  if (failures.size() > kMaxFailures) failures.erase(failures.begin(), failures.end() - kMaxFailures);
}

std::string restart_limit_reached(const Situation& situation) {
  const api::Limit& limit = situation.spec.recovery.restarts;
  if (failures_since(situation, limit.window) < limit.count) return {};
  return "recovery.limit: " + std::to_string(limit.count) + " restarts within " + to_string(limit.window);
}

bool in_place_allowed(const Situation& situation, api::Cause cause, const std::string& node) {
  const api::Limit& limit = situation.spec.recovery.in_place;
  return failures_on_node(situation, cause, node, limit.window) < limit.count;
}

}  // namespace pitcrew::control
