#include "tests/simulation/pausable_loop.hpp"

#include <utility>

namespace pitcrew::simulation {

class PausableLoop::PausableTimer final : public Loop::Timer {
 public:
  PausableTimer(std::weak_ptr<Entry> entry, TimerPtr inner) : entry_(std::move(entry)), inner_(std::move(inner)) {}
  ~PausableTimer() override {
    if (const auto entry = entry_.lock()) entry->cancelled = true;
  }

 private:
  std::weak_ptr<Entry> entry_;  // the task may own this timer
  TimerPtr inner_;
};

void PausableLoop::State::run(const std::shared_ptr<Entry>& entry) {
  if (entry->cancelled) return;
  if (paused) {
    held.push_back(entry);
    return;
  }
  const Task task = std::move(entry->task);
  task();
}

void PausableLoop::post(Task task) {
  auto entry = std::make_shared<Entry>(Entry{std::move(task)});
  inner_.post([state = state_, entry] { state->run(entry); });
}

Loop::TimerPtr PausableLoop::after(Duration delay, Task task) {
  auto entry = std::make_shared<Entry>(Entry{std::move(task)});
  auto timer = inner_.after(delay, [state = state_, entry] { state->run(entry); });
  return std::make_unique<PausableTimer>(entry, std::move(timer));
}

void PausableLoop::resume() {
  if (!state_->paused) return;
  state_->paused = false;
  for (const auto& entry : std::exchange(state_->held, {})) {
    inner_.post([state = state_, entry] { state->run(entry); });
  }
}

}  // namespace pitcrew::simulation
