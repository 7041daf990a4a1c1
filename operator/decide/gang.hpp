#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Never half a gang. Before the first epoch, and after a release: waits until replicas and spares fit, reserves their
// serials on pinned nodes, waits until every slot is bound and connected, and commits the epoch; releases the gang
// whole where it isn't complete within placement.gangTimeout.
void assemble_gang(Situation& situation);

// Says in the condition Admitted that the API server refuses the job's pods, and when it has taken one.
void tell_refusal(Situation& situation);

// Between two epochs: gives slots without a pod to spares, else to new pods on nodes that fit; commits the next epoch
// as soon as every slot is connected; releases the gang whole after recovery.waitInPlace.
void fill_gang(Situation& situation);

}  // namespace pitcrew::control
