#include "operator/decide/limits.hpp"

#include <algorithm>
#include <set>

namespace pitcrew::control {
namespace {

constexpr size_t kMaxFailures = 256;
constexpr size_t kTriesAtOnce = 2;
constexpr Duration kFirstPause = seconds(2);
constexpr Duration kLongestPause = minutes(1);

// The ranks started, as far as is known, and ended by themselves.
bool ended_by_itself(const api::Recovery& recovery) {
  return recovery.cause == api::Cause::kRankCrash || recovery.cause == api::Cause::kLauncherDeath ||
         recovery.cause == api::Cause::kUnknown;
}

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

std::optional<Instant> next_start_not_before(const Situation& situation) {
  const auto& recoveries = situation.status.recoveries;
  const auto other = std::find_if(recoveries.begin(), recoveries.end(), [](const api::Recovery& recovery) {
    return recovery.first_step.has_value() || !ended_by_itself(recovery);
  });
  const auto tries = static_cast<size_t>(other - recoveries.begin());
  if (tries <= kTriesAtOnce) return std::nullopt;
  Duration pause = kFirstPause;
  for (size_t i = kTriesAtOnce + 1; i < tries && pause < kLongestPause; ++i) pause *= 2;
  return recoveries.front().decided.value_or(situation.now) + std::min(pause, kLongestPause);
}

}  // namespace pitcrew::control
