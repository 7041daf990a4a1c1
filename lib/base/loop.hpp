#pragma once

#include <functional>
#include <memory>

#include "lib/base/clock.hpp"

namespace pitcrew {

// The event loop that everything asynchronous of ours runs on: the one seam between logic and real time.
//
// All functions handed to one Loop run one at a time, on whichever thread runs it, in the order of their times and, at
// the same time, in the order in which they were handed over. Objects that live on a loop need no locks and are
// created, used and destroyed on it. `post` alone may be called from any thread.
//
// Implementations: VirtualLoop below for the simulation, net::AsioLoop for the programs.
class Loop : public Clock {
 public:
  using Task = std::function<void()>;

  // Cancels its task when it is destroyed or told to; a task that has run is not affected.
  class Timer {
   public:
    virtual ~Timer() = default;
  };
  using TimerPtr = std::unique_ptr<Timer>;

  // Runs the task as soon as the loop gets to it, never inside this call.
  virtual void post(Task task) = 0;
  // Runs the task once `delay` has passed, unless the timer is destroyed before. Dropping the result cancels at once.
  [[nodiscard]] virtual TimerPtr after(Duration delay, Task task) = 0;
};

// A Loop whose time jumps from one task to the next: hours pass in milliseconds, and every run with the same tasks
// takes the same order. Single-threaded; used by the simulation and by unit tests.
class VirtualLoop final : public Loop {
 public:
  explicit VirtualLoop(Instant start = Instant(seconds(1'700'000'000)));
  ~VirtualLoop() override;

  Instant now() const override;
  void post(Task task) override;
  TimerPtr after(Duration delay, Task task) override;

  // Runs the next task, moving time on to it; false where there is none.
  bool step();
  // Runs all tasks up to and including `until`, then stands at it.
  void run_until(Instant until);
  void run_for(Duration duration) { run_until(now() + duration); }
  // Runs what is due now, without moving time.
  void run_ready();
  // How many tasks have run: what a test compares to prove that nothing happens.
  uint64_t executed() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew
