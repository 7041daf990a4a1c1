#pragma once

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// The herd rule: channels of at least three nodes, and of more than half of the nodes that were connected, fell silent
// within two seconds. That is the network or the operator itself, not the nodes: nothing is judged by silence until
// half of them are back or 30 s have passed.
struct Herd {
  bool waiting = false;
  Instant until;
};
Herd judge_herd(uint32_t connected_nodes, const std::vector<SilentNode>& silent, Instant now);

// Whether a member's node is lost.
struct NodeLossVerdict {
  bool lost = false;
  Instant happened;         // when the launcher was last heard
  std::string second_sign;  // what stands beside the silence
  std::optional<Instant> look_again;
};

// How long a member is silent before its node may be lost. A launcher that said goodbye was stopped by somebody, and
// its pod will soon say by whom; a power-cut says nothing.
Duration silence_before_loss(const Member& member);

// Silent for so long AND a second sign: its node is gone or not ready, peers can't reach its launcher, or a peer's
// rank lost it, exited or stalled after it fell silent. To a fresh leader everybody is silent since it began to listen;
// whoever may still say hello is lost only where its node is not ready or peers can't reach it. Never while the step
// advances, and never while a herd is being waited for.
NodeLossVerdict judge_node_loss(const Situation& situation, const Member& member);

}  // namespace pitcrew::control
