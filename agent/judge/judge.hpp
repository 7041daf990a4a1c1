#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "agent/judge/history.hpp"

namespace pitcrew::agent {

// A rule's match that was seen, whatever follows: what metrics count.
struct Match {
  std::string rule;
  std::string device;
};

struct Change {
  api::HealthChange change = api::HealthChange::kRaised;
  Verdict verdict;
  std::string why;  // of a clearing
};

struct Judgement {
  History history;
  std::vector<Match> matches;
  std::vector<Change> changes;  // in the order in which they came
  std::vector<Verdict> verdicts() const;
  // When to judge again though nothing is observed.
  std::optional<Instant> wake;
};

// Judges what was observed, in its order, in the light of what was before. Pure. `now` is not before any observation.
//
// Of itself, whatever the policy says: an event that was judged before is not judged again; the first reading of a kind
// and device after a start of the agent or the driver is only what later ones are compared with; a counter that goes
// backwards is a first reading; a broken probe raises no fault and clears none.
Judgement judge(std::span<const Observation> observations, const api::HealthPolicy& policy, History history,
                Instant now);

// What the verdicts mean for the node.
struct Assessment {
  bool healthy = true;
  bool certain = false;  // one of its faults is
  api::HealthAction needs = api::HealthAction::kNone;
  std::string reason;   // CamelCase, for the node condition: of the strongest fault
  std::string message;  // all faults, strongest first, at most 1024 characters
};
Assessment assess(std::span<const Verdict> verdicts);

}  // namespace pitcrew::agent
