#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/kube/runtime/work_queue.hpp"

namespace pitcrew::kube {

// How a reconcile of one key ended.
class Reconciled {
 public:
  enum class Kind { kDone, kAgainAfter, kFailed, kTerminal };

  static Reconciled done() { return Reconciled(Kind::kDone); }
  // Nothing is wrong; look again after this time (sooner if an event says so).
  static Reconciled again_after(Duration delay);
  // Try again after the key's back-off, or the error's own retry_after where that is longer.
  static Reconciled failed(Error error);
  // No try will help before the object changes; counted.
  static Reconciled terminal(Error error);

  Kind kind() const { return kind_; }
  Duration delay() const { return delay_; }
  const Error& error() const { return *error_; }

 private:
  explicit Reconciled(Kind kind) : kind_(kind) {}
  Kind kind_;
  Duration delay_{0};
  std::optional<Error> error_;
};

struct ControllerSettings {
  std::string name = "controller";
  size_t workers = 8;  // reconciles under way at once; never two of one key
  WorkQueueSettings queue;
};

struct ControllerMetrics {
  uint64_t reconciles = 0;
  uint64_t done = 0;
  uint64_t requeued = 0;
  uint64_t failed = 0;
  uint64_t terminal = 0;
};

// Runs a level-based reconcile(key) for every key that is enqueued, once all caches have synced. Lives on a Loop;
// destroying it drops what runs (late answers are ignored). The reconcile calls `done` exactly once, now or later, on
// the loop.
class Controller {
 public:
  using Done = std::function<void(Reconciled)>;
  using Reconcile = std::function<void(const ObjectKey& key, Done done)>;

  Controller(Loop& loop, ControllerSettings settings, Reconcile reconcile, Logger log = {});
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  // Work begins when every one of these is true (they are asked each time something is enqueued, and every 100 ms).
  void wait_for(std::function<bool()> synced) { waits_.push_back(std::move(synced)); }
  void start();

  void enqueue(const ObjectKey& key, int priority = priority::kNormal);
  void enqueue_after(const ObjectKey& key, Duration delay, int priority = priority::kNormal);

  // Takes no more work, lets what runs finish, then calls `drained` (never inside this call).
  void stop(std::function<void()> drained);

  bool started() const { return running_; }
  const WorkQueue& queue() const { return queue_; }
  const ControllerMetrics& metrics() const { return metrics_; }

 private:
  void schedule();
  void pump();
  void finished(const ObjectKey& key, int priority, const Reconciled& result);

  Loop& loop_;
  ControllerSettings settings_;
  Reconcile reconcile_;
  Logger log_;
  WorkQueue queue_;
  ControllerMetrics metrics_;
  std::vector<std::function<bool()>> waits_;
  bool started_ = false;  // start() was called
  bool running_ = false;  // and the caches have synced
  bool scheduled_ = false;
  std::function<void()> drained_;
  Loop::TimerPtr timer_;
  std::optional<Instant> timer_at_;
  std::shared_ptr<Controller*> self_;  // null for callbacks that outlive it
};

}  // namespace pitcrew::kube
