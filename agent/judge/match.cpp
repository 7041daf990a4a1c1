#include "agent/judge/match.hpp"

#include <algorithm>

namespace pitcrew::agent {
namespace {

using api::HealthTest;

uint32_t mask_of(const std::vector<uint32_t>& bits) {
  uint32_t mask = 0;
  for (const uint32_t bit : bits) mask |= 1u << bit;
  return mask;
}

bool holds_for_register(const HealthTest& test, double value) {
  if (value < 0 || value > 4294967295.0) return false;
  const auto set = static_cast<uint32_t>(value);
  return test.bits_outside ? (set & ~mask_of(*test.bits_outside)) != 0 : (set & mask_of(test.bits)) != 0;
}

bool holds_for_growth(const HealthTest& test, const Observation& observation, double value,
                      const History::Reading* before) {
  if (before == nullptr) return false;
  const auto last = before->values.find(test.value);
  if (last == before->values.end() || value < last->second) return false;
  const double growth = value - last->second;
  if (test.grows) return growth > *test.grows;
  if (test.grows_less) return growth < *test.grows_less;
  const double elapsed = to_seconds(observation.time - before->time);
  if (elapsed <= 0) return false;
  const double per_minute = growth * 60 / elapsed;
  if (test.per_minute) return per_minute > *test.per_minute;
  const auto limit = observation.number(test.per_minute_above_value);
  return limit && per_minute > *limit;
}

bool holds(const HealthTest& test, const Observation& observation, const History::Reading* before) {
  const auto value = observation.values.find(test.value);
  if (test.present) return (value != observation.values.end()) == *test.present;
  if (value == observation.values.end()) return false;
  if (!test.is.empty()) {
    return std::find(test.is.begin(), test.is.end(), to_string(value->second)) != test.is.end();
  }
  const auto number = observation.number(test.value);
  if (!number) return false;
  if (test.above) return *number > *test.above;
  if (test.below) return *number < *test.below;
  if (!test.above_value.empty() || !test.below_value.empty()) {
    const auto other = observation.number(test.above_value.empty() ? test.below_value : test.above_value);
    return other && (test.above_value.empty() ? *number < *other : *number > *other);
  }
  if (!test.bits.empty() || test.bits_outside) return holds_for_register(test, *number);
  return holds_for_growth(test, observation, *number, before);
}

}  // namespace

bool matches(const api::HealthRule& rule, const Observation& observation, const History::Reading* before) {
  if (!rule.about(observation.kind, observation.code)) return false;
  const auto good = [&](const HealthTest& test) { return holds(test, observation, before); };
  if (!std::all_of(rule.match.all.begin(), rule.match.all.end(), good)) return false;
  return rule.match.any.empty() || std::any_of(rule.match.any.begin(), rule.match.any.end(), good);
}

}  // namespace pitcrew::agent
