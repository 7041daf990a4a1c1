#include "lib/base/loop.hpp"

#include <map>
#include <utility>

namespace pitcrew {

struct VirtualLoop::State {
  using Key = std::pair<Instant, uint64_t>;
  Instant now;
  uint64_t next_sequence = 0;
  uint64_t executed = 0;
  std::map<Key, Task> tasks;
};

namespace {

template <typename State>
class VirtualTimer final : public Loop::Timer {
 public:
  VirtualTimer(std::weak_ptr<State> state, typename State::Key key) : state_(std::move(state)), key_(key) {}
  ~VirtualTimer() override {
    const auto state = state_.lock();
    if (!state) return;
    // The task may own this timer: take it out of the map before it is destroyed.
    auto node = state->tasks.extract(key_);
  }

 private:
  std::weak_ptr<State> state_;
  typename State::Key key_;
};

}  // namespace

VirtualLoop::VirtualLoop(Instant start) : state_(std::make_shared<State>()) { state_->now = start; }

VirtualLoop::~VirtualLoop() {
  // Tasks may own objects whose timers reach back into the map.
  while (!state_->tasks.empty()) auto node = state_->tasks.extract(state_->tasks.begin());
}

Instant VirtualLoop::now() const { return state_->now; }

void VirtualLoop::post(Task task) {
  state_->tasks.emplace(State::Key{state_->now, state_->next_sequence++}, std::move(task));
}

Loop::TimerPtr VirtualLoop::after(Duration delay, Task task) {
  const State::Key key{state_->now + std::max(delay, Duration(0)), state_->next_sequence++};
  state_->tasks.emplace(key, std::move(task));
  return std::make_unique<VirtualTimer<State>>(state_, key);
}

bool VirtualLoop::step() {
  if (state_->tasks.empty()) return false;
  auto node = state_->tasks.extract(state_->tasks.begin());
  state_->now = std::max(state_->now, node.key().first);
  ++state_->executed;
  node.mapped()();
  return true;
}

void VirtualLoop::run_until(Instant until) {
  while (!state_->tasks.empty() && state_->tasks.begin()->first.first <= until) step();
  state_->now = std::max(state_->now, until);
}

void VirtualLoop::run_ready() { run_until(state_->now); }

uint64_t VirtualLoop::executed() const { return state_->executed; }

}  // namespace pitcrew
