#pragma once

#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "agent/probe/observation.hpp"
#include "lib/api/node_health.hpp"

namespace pitcrew::agent {

// Which EFA counters of this node grow faster than a rule of the policy lets them: what NodeHealth.status.rates holds,
// and what the operator judges over several nodes. The list changes when a counter crosses its limit, when it falls
// back, and when its rate has become quite another one (twice, or half), so that a healthy node writes nothing and a
// bad one little.
//
// A step function: the same observations and times give the same list. As in judgement, a first reading, one after a
// start of the agent, and a counter that goes backwards only begin anew.
class RateWatch {
 public:
  static constexpr Duration kForgotten = minutes(5);  // a device that is not read any more has no rate
  static constexpr double kAnother = 2;
  static constexpr size_t kMaxRates = 128;

  // Takes what was observed until `now`; true where the list has changed.
  bool take(std::span<const Observation> observations, const api::HealthPolicy& policy, Instant now);
  // By device and counter.
  std::vector<api::DeviceRate> rates() const;

 private:
  using Counter = std::pair<std::string, std::string>;  // device, counter
  struct Last {
    double value = 0;
    Instant time;
  };
  bool read(const Observation& observation, const api::HealthPolicy& policy);

  std::map<Counter, Last> last_;
  std::map<Counter, api::DeviceRate> over_;  // above a limit
};

}  // namespace pitcrew::agent
