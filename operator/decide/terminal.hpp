#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// The job is over, for ever: phase, conditions, completion time. Pods are ended from the stored status afterwards.
void succeed(Situation& situation);
void fail(Situation& situation, std::string reason, std::string message);

// What is left to do for a job that is over: launchers are told, pods that hang on are deleted, and after
// ttlAfterFinished the job itself. Of a job that succeeded the pods that ended by themselves stay, with their logs.
void after_the_end(Situation& situation, Plan& plan);

}  // namespace pitcrew::control
