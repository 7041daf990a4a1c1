#pragma once

#include <deque>
#include <memory>

#include "lib/base/loop.hpp"

namespace pitcrew::simulation {

// A loop on another loop that can be stopped for a while, as SIGSTOP stops a process: what falls due meanwhile runs
// when it goes on, in order, and its owner never knew. Lives as long as whatever was handed to it.
class PausableLoop final : public Loop {
 public:
  explicit PausableLoop(Loop& inner) : inner_(inner), state_(std::make_shared<State>()) {}

  Instant now() const override { return inner_.now(); }
  void post(Task task) override;
  TimerPtr after(Duration delay, Task task) override;

  void pause() { state_->paused = true; }
  void resume();
  bool paused() const { return state_->paused; }

 private:
  struct Entry {
    Task task;
    bool cancelled = false;
  };
  struct State {
    bool paused = false;
    std::deque<std::shared_ptr<Entry>> held;
    void run(const std::shared_ptr<Entry>& entry);
  };
  class PausableTimer;

  Loop& inner_;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::simulation
