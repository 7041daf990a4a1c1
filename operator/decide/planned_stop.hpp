#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Suspend and deadlines: ranks are told to save within a grace and to stop, then the gang is released. True where that
// decided about the job, so that nothing else has to be.
bool plan_stops(Situation& situation);

// The stop that is under way by the stored status: what launchers are told. Unset: none.
struct PlannedStop {
  std::string reason;
  Duration grace;
};
std::optional<PlannedStop> planned_stop(const Situation& situation);

// Every slot's ranks have ended, by their launcher's word or since their pod has.
bool all_stopped(const Situation& situation);
// From the order to save and stop until it isn't waited for any more.
Duration stop_grace(const Situation& situation);
// The same where a node is unhealthy.
Duration fault_grace();

}  // namespace pitcrew::control
