#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/probe/observation.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::agent {

// One probe's row: what it is called, how often it looks, how long it may take, and how it looks.
struct ProbeTask {
  std::string name;
  Duration every = seconds(30);
  Duration limit = seconds(5);
  // Called on the probe's own thread, never twice at a time. An error is the probe's failure, not the device's.
  std::function<Result<std::vector<Observation>>(Instant now)> look;
};

// Runs probes so that none can block another: each has a thread of its own, which sleeps until it is told to look. A
// driver call that hangs holds its own thread alone; the probe is reported as broken until it returns.
//
// Owned by the agent. poll() and the destructor belong to one thread; time comes in by poll(). The destructor waits for
// the threads, but not for one that is over its limit: nobody can end a thread inside a driver call, so it is left
// behind with its own copy of the task and ends when the call returns or the process does.
class ProbeRunner {
 public:
  // `ended` is called whenever a look has ended, on the probe's thread: poll() has something to give then.
  explicit ProbeRunner(std::vector<ProbeTask> tasks, std::function<void()> ended = {});
  ~ProbeRunner();
  ProbeRunner(const ProbeRunner&) = delete;
  ProbeRunner& operator=(const ProbeRunner&) = delete;

  // Starts what is due and takes what is done: observations of the probes, and for each look that ended, failed or went
  // over its limit one of kind `probe` with the values probe, ok, and seconds. Never waits.
  std::vector<Observation> poll(Instant now);
  // When poll() has something to do at the latest; results may be there before.
  Instant next(Instant now) const;
  // Blocks until no look is under way or `limit` of real time has passed; true where none is. For one-shot programs and
  // tests.
  bool settle(Duration limit);

 private:
  struct Worker;
  std::vector<std::shared_ptr<Worker>> workers_;
};

}  // namespace pitcrew::agent
