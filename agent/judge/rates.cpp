#include "agent/judge/rates.hpp"

#include <algorithm>

namespace pitcrew::agent {
namespace {

// Growth a minute above which a rule matches: the lowest limit of the policy for this counter.
std::optional<double> limit_of(const api::HealthPolicy& policy, const Observation& observation,
                               const std::string& counter) {
  std::optional<double> lowest;
  for (const api::HealthRule& rule : policy.rules) {
    if (rule.match.kind != observation.kind) continue;
    for (const auto* tests : {&rule.match.all, &rule.match.any}) {
      for (const api::HealthTest& test : *tests) {
        if (test.value != counter) continue;
        std::optional<double> limit = test.per_minute;
        if (!test.per_minute_above_value.empty()) limit = observation.number(test.per_minute_above_value);
        if (limit && (!lowest || *limit < *lowest)) lowest = limit;
      }
    }
  }
  return lowest;
}

}  // namespace

bool RateWatch::read(const Observation& observation, const api::HealthPolicy& policy) {
  bool changed = false;
  for (const auto& [name, value] : observation.values) {
    const auto number = observation.number(name);
    const auto limit = number ? limit_of(policy, observation, name) : std::nullopt;
    if (!limit) continue;
    const Counter counter(observation.device, name);
    const auto [place, first] = last_.try_emplace(counter, Last{*number, observation.time});
    if (first) continue;
    const Last before = std::exchange(place->second, Last{*number, observation.time});
    const double elapsed = to_seconds(observation.time - before.time);
    if (elapsed <= 0 || *number < before.value) continue;
    const double per_second = (*number - before.value) / elapsed;
    if (per_second * 60 <= *limit) {
      changed = over_.erase(counter) > 0 || changed;
      continue;
    }
    const auto told = over_.find(counter);
    if (told == over_.end() && over_.size() >= kMaxRates) continue;
    if (told != over_.end() && per_second < told->second.per_second * kAnother &&
        per_second > told->second.per_second / kAnother) {
      continue;
    }
    over_[counter] = {observation.device, name, per_second, observation.time};
    changed = true;
  }
  return changed;
}

bool RateWatch::take(std::span<const Observation> observations, const api::HealthPolicy& policy, Instant now) {
  bool changed = false;
  for (const Observation& observation : observations) {
    if (observation.kind == kinds::kAgentStart) last_.clear();
    if (observation.reading && observation.kind.starts_with("efa.")) changed = read(observation, policy) || changed;
  }
  for (auto place = last_.begin(); place != last_.end();) {
    if (now - place->second.time < kForgotten) {
      ++place;
      continue;
    }
    changed = over_.erase(place->first) > 0 || changed;
    place = last_.erase(place);
  }
  return changed;
}

std::vector<api::DeviceRate> RateWatch::rates() const {
  std::vector<api::DeviceRate> rates;
  for (const auto& [counter, rate] : over_) rates.push_back(rate);
  return rates;
}

}  // namespace pitcrew::agent
