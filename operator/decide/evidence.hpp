#pragma once

#include <set>

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// What brought the epoch down: the first cause, not what followed from it.
struct Verdict {
  api::Cause cause = api::Cause::kUnknown;
  std::optional<Slot> slot;
  std::optional<Rank> rank;
  std::string node;
  Instant happened;
  std::string evidence;                     // for people
  std::string fingerprint;                  // exception and step: the same failure again has the same; empty: unknown
  std::optional<int> exit_code;             // of the rank that failed
  std::vector<std::string> log;             // its last lines
  std::optional<api::ReplayStatus> replay;  // a step that gave the same bits twice, and they can't be right
};

// Slots whose pods can't take part any more, and why each.
struct LostSlot {
  Slot slot;
  api::Cause cause = api::Cause::kUnknown;
  std::string node;
};

struct Judgement {
  std::optional<Verdict> verdict;
  std::vector<LostSlot> lost;
  bool done = false;  // every rank has trained to the end
};

// Reads the signs of the running epoch: exits, hangs, dead launchers, lost pods and nodes. Waits a moment (wake_at)
// where a sign may be the consequence of one that is still to come: 300 ms for ranks that fail together, 5 s for a rank
// that failed on its own account while a launcher is silent or says nothing about it, 10 s for ranks that only say that
// they lost a peer.
Judgement judge(Situation& situation);

}  // namespace pitcrew::control
