#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Counting restarts, and failures, within a window that ends now. One on the window's edge is outside.
uint32_t failures_since(const Situation& situation, Duration window);
uint32_t failures_on_node(const Situation& situation, api::Cause cause, const std::string& node, Duration window);

// Writes one failure down for the limits, and forgets those that are older than every window.
void record_failure(Situation& situation, api::FailureRecord failure);

// Whether one more restart is allowed; the empty string, or which limit is reached, as a message for people.
std::string restart_limit_reached(const Situation& situation);

// Whether the rank may be restarted where it is once more: recovery.inPlace, per cause and node.
bool in_place_allowed(const Situation& situation, api::Cause cause, const std::string& node);

// Until when the next epoch waits, where the last ones ended before a step: what they need (storage, a registry of
// data, a licence server) may be away for minutes, and starts in quick succession would only use the limit up. The
// first two tries come at once. Unset: nothing to wait for.
std::optional<Instant> next_start_not_before(const Situation& situation);

}  // namespace pitcrew::control
