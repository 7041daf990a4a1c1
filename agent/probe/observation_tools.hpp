#pragma once

#include <string>
#include <utility>

#include "agent/probe/observation.hpp"

namespace pitcrew::agent {

// A reading without values yet.
inline Observation make_reading(std::string kind, std::string device, Instant now) {
  Observation observation;
  observation.kind = std::move(kind);
  observation.device = std::move(device);
  observation.reading = true;
  observation.time = now;
  return observation;
}

}  // namespace pitcrew::agent
