#pragma once

#include <vector>

#include "agent/probe/observation.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::agent {

// Something that looks at one source, again and again. Owned by its task, always called on that task's thread, never
// twice at a time, so it may keep what it saw before. What is absent on this machine gives no observations; an error
// means that the probe could not look, never that what it looks at is bad.
class Probe {
 public:
  virtual ~Probe() = default;
  virtual Result<std::vector<Observation>> look(Instant now) = 0;
};

}  // namespace pitcrew::agent
