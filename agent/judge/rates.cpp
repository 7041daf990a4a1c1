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

void RateWatch::read(const Observation& observation, const api::HealthPolicy& policy) {
  for (const auto& [name, value] : observation.values) {
    const auto number = observation.number(name);
    if (!number) continue;
    const auto limit = limit_of(policy, observation, name);
    if (!limit) continue;
    const Counter counter(observation.device, name);
    const auto [place, first] = last_.try_emplace(counter, Last{*number, observation.time});
    if (first) continue;
    const Last before = std::exchange(place->second, Last{*number, observation.time});
    const double elapsed = to_seconds(observation.time - before.time);
    if (elapsed <= 0 || *number < before.value) continue;
    const double per_second = (*number - before.value) / elapsed;
    if (per_second * 60 > *limit) {
      if (over_.size() < kMaxRates || over_.contains(counter)) {
        over_[counter] = {observation.device, name, per_second, observation.time};
      }
    } else {
      over_.erase(counter);
    }
  }
}

std::optional<std::vector<api::DeviceRate>> RateWatch::take(std::span<const Observation> observations,
                                                            const api::HealthPolicy& policy, Instant now) {
  for (const Observation& observation : observations) {
    if (observation.kind == kinds::kAgentStart) last_.clear();
    if (observation.reading && observation.kind.starts_with("efa.")) read(observation, policy);
  }
  for (auto place = last_.begin(); place != last_.end();) {
    if (now - place->second.time < kForgotten) {
      ++place;
      continue;
    }
    over_.erase(place->first);
    place = last_.erase(place);
  }
  std::vector<Counter> names;
  for (const auto& [counter, rate] : over_) names.push_back(counter);
  due_ = names != written_;
  if (!due_ || (written_at_ && now - *written_at_ < kLeast)) return std::nullopt;
  std::vector<api::DeviceRate> rates;
  for (const auto& [counter, rate] : over_) rates.push_back(rate);
  written_ = std::move(names);
  written_at_ = now;
  due_ = false;
  return rates;
}

std::optional<Instant> RateWatch::wake() const {
  if (!due_ || !written_at_) return std::nullopt;
  return *written_at_ + kLeast;
}

}  // namespace pitcrew::agent
