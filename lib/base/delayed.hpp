#pragma once

#include <map>

#include "lib/base/loop.hpp"

namespace pitcrew {

// Tasks that an object has put off: any number of them, all cancelled when this is destroyed or told to. Lives on the
// loop, as a member of the object that the tasks use; a task may destroy its owner.
class Delayed {
 public:
  explicit Delayed(Loop& loop) : loop_(loop) {}

  void after(Duration delay, Loop::Task task) {
    const uint64_t id = next_++;
    timers_[id] = loop_.after(delay, [this, id, task = std::move(task)] {
      const auto running = timers_.extract(id);
      task();
    });
  }
  void clear() { timers_.clear(); }
  size_t size() const { return timers_.size(); }

 private:
  Loop& loop_;
  uint64_t next_ = 0;
  std::map<uint64_t, Loop::TimerPtr> timers_;
};

}  // namespace pitcrew
