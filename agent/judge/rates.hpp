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
// and what the operator judges over several nodes. A list is due when a counter crosses its limit and when it falls
// back, and not more often than kLeast apart; in between the rates in it stay as they were, so that a healthy node
// writes nothing and a bad one little.
//
// A step function: the same state, observations and time give the same list. As in judgement, a first reading, one
// after a start of the agent or driver, and a counter that goes backwards only begin anew.
class RateWatch {
 public:
  static constexpr Duration kLeast = seconds(10);
  static constexpr Duration kForgotten = minutes(5);  // a device that is not read any more has no rate
  static constexpr size_t kMaxRates = 128;

  // The list to write, where one is due. Call it also when wake() says so.
  std::optional<std::vector<api::DeviceRate>> take(std::span<const Observation> observations,
                                                   const api::HealthPolicy& policy, Instant now);
  std::optional<Instant> wake() const;

 private:
  using Counter = std::pair<std::string, std::string>;  // device, counter
  struct Last {
    double value = 0;
    Instant time;
  };
  void read(const Observation& observation, const api::HealthPolicy& policy);

  std::map<Counter, Last> last_;
  std::map<Counter, api::DeviceRate> over_;  // now above a limit
  std::vector<Counter> written_;             // what the last list named
  std::optional<Instant> written_at_;
  bool due_ = false;
};

}  // namespace pitcrew::agent
