#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "agent/probe/observation.hpp"
#include "lib/api/node_health.hpp"

namespace pitcrew::agent {

using Verdict = api::HealthVerdict;

// What judgement knows from before: nothing else decides, so the same history and observations give the same verdicts.
// Bounded; what is dropped is the oldest. Kept over an agent's restart by remember() and recall().
struct History {
  static constexpr size_t kMaxSightings = 512;
  static constexpr size_t kMaxWaiting = 64;
  static constexpr size_t kMaxEvents = 128;
  static constexpr size_t kMaxIds = 512;
  static constexpr Duration kReadingKept = hours(24);  // of a device that is not read any more: a volume that was

  // One match of a rule that counts matches.
  struct Sighting {
    std::string rule;
    std::string device;
    std::string same;  // the values named by the rule's `same`
    Instant time;
    bool operator==(const Sighting&) const = default;
  };
  // A match that waits whether another XID comes.
  struct Waiting {
    std::string rule;
    Observation event;
    bool operator==(const Waiting&) const = default;
  };
  struct Event {
    std::string kind;
    uint32_t code = 0;
    std::string device;
    Instant time;
    bool operator==(const Event&) const = default;
  };
  struct Reading {
    std::map<std::string, double> values;
    Instant time;
    bool operator==(const Reading&) const = default;
  };
  struct Open {
    Verdict verdict;
    std::string kind;      // of the observations behind it
    bool reading = false;  // whether they are readings
    bool good = false;     // the newest reading does not match
    bool operator==(const Open&) const = default;
  };

  std::string boot_id;
  std::vector<Open> open;  // in the order in which they were raised
  std::vector<Sighting> sightings;
  std::vector<Waiting> waiting;
  std::vector<Event> events;                                        // XIDs and SXIDs of the last minutes
  std::deque<std::string> ids;                                      // of events already judged
  std::map<std::pair<std::string, std::string>, Reading> readings;  // by kind and device; since the start alone
  Instant swept;                                                    // of readings that are too old
  bool operator==(const History&) const = default;
};

// History as text for NodeHealth.status.memory, and back. Readings are left out: after a start they begin anew. What is
// too old or too much is dropped, so that it stays below 64 KiB.
std::string remember(const History& history);
Result<History> recall(std::string_view memory);

}  // namespace pitcrew::agent
