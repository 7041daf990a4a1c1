#pragma once

#include <initializer_list>

#include "lib/base/loop.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::net {

// The Loop of the programs: real time, sockets, signals and file descriptors on one thread.
//
// Made by main, run by one thread, destroyed last: whatever holds an AsioLoop& goes before it. `post` and `stop` may be
// called from any thread; the rest belongs to the thread that runs the loop (or, before it runs, to the one that made
// it).
class AsioLoop final : public Loop {
 public:
  enum class Ready { kRead, kWrite };

  // Ends a watch when it is destroyed: its function is not called again.
  class Watch {
   public:
    virtual ~Watch() = default;
  };
  using WatchPtr = std::unique_ptr<Watch>;

  AsioLoop();
  ~AsioLoop() override;
  AsioLoop(const AsioLoop&) = delete;
  AsioLoop& operator=(const AsioLoop&) = delete;

  Instant now() const override;
  void post(Task task) override;
  TimerPtr after(Duration delay, Task task) override;

  // Runs until stop(), which may come from a task, a signal's function or another thread. Can be run again.
  void run();
  void stop();
  // Runs until the condition holds, looked at after everything that runs, or until `cap` has passed or stop() was
  // called; returns whether it holds.
  bool run_until(const std::function<bool()>& condition, Duration cap);

  // Calls the function on the loop when one of the signals has come; several that come at once may be told once. A
  // child between fork and exec still shares the handler: block signals around fork.
  [[nodiscard]] Result<WatchPtr> on_signal(std::initializer_list<int> signals,
                                           std::function<void(int signal)> function);
  // Calls the function each time the loop finds the descriptor ready, for as long as it stays ready (level-triggered);
  // end of file and errors count as ready. The watch holds a duplicate: the caller may close its own before or after.
  // Files on a disk can't be watched (kUnsupported).
  [[nodiscard]] Result<WatchPtr> watch_fd(int fd, Ready ready, std::function<void()> function);

  struct Impl;  // for lib/net's own sources
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace pitcrew::net
