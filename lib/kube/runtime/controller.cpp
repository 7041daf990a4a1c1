#include "lib/kube/runtime/controller.hpp"

#include <algorithm>

namespace pitcrew::kube {

Reconciled Reconciled::again_after(Duration delay) {
  Reconciled result(Kind::kAgainAfter);
  result.delay_ = delay;
  return result;
}

Reconciled Reconciled::failed(Error error) {
  Reconciled result(Kind::kFailed);
  result.error_ = std::move(error);
  return result;
}

Reconciled Reconciled::terminal(Error error) {
  Reconciled result(Kind::kTerminal);
  result.error_ = std::move(error);
  return result;
}

Controller::Controller(Loop& loop, ControllerSettings settings, Reconcile reconcile, Logger log)
    : loop_(loop),
      settings_(std::move(settings)),
      reconcile_(std::move(reconcile)),
      log_(log.with({{"controller", settings_.name}})),
      queue_(loop, settings_.queue),
      self_(std::make_shared<Controller*>(this)) {}

Controller::~Controller() = default;

void Controller::start() {
  started_ = true;
  schedule();
}

void Controller::enqueue(const ObjectKey& key, int priority) {
  queue_.add(key, priority);
  schedule();
}

void Controller::enqueue_after(const ObjectKey& key, Duration delay, int priority) {
  queue_.add_after(key, delay, priority);
  schedule();
}

void Controller::stop(std::function<void()> drained) {
  queue_.shut_down();
  drained_ = std::move(drained);
  timer_.reset();
  timer_at_.reset();
  schedule();
}

// Looks at the queue from the loop, once for many changes.
void Controller::schedule() {
  if (scheduled_ || (!started_ && !drained_)) return;
  scheduled_ = true;
  loop_.post([weak = std::weak_ptr<Controller*>(self_)] {
    const auto self = weak.lock();
    if (!self) return;
    (*self)->scheduled_ = false;
    (*self)->pump();
  });
}

void Controller::pump() {
  if (queue_.drained()) {
    if (auto drained = std::exchange(drained_, nullptr)) drained();
    return;
  }
  if (!running_) {
    running_ = std::all_of(waits_.begin(), waits_.end(), [](const auto& synced) { return synced(); });
    if (!running_) {
      timer_ = loop_.after(milliseconds(100), [this] { schedule(); });
      return;
    }
  }
  const std::weak_ptr<Controller*> weak = self_;
  while (queue_.processing() < settings_.workers) {
    auto item = queue_.take();
    if (!item) break;
    ++metrics_.reconciles;
    reconcile_(item->key, [weak, key = item->key, priority = item->priority](const Reconciled& result) {
      if (const auto self = weak.lock()) (*self)->finished(key, priority, result);
    });
    if (weak.expired()) return;  // the reconcile has ended the program
  }
  const auto next = queue_.next_ready();
  if (!next || queue_.shutting_down()) return;
  if (timer_at_ == next) return;
  timer_at_ = next;
  timer_ = loop_.after(*next - loop_.now(), [this] {
    timer_at_.reset();
    schedule();
  });
}

void Controller::finished(const ObjectKey& key, int priority, const Reconciled& result) {
  queue_.done(key);
  switch (result.kind()) {
    case Reconciled::Kind::kDone:
      ++metrics_.done;
      queue_.forget(key);
      break;
    case Reconciled::Kind::kAgainAfter:
      ++metrics_.requeued;
      queue_.forget(key);
      queue_.add_after(key, result.delay(), priority::kNormal);
      break;
    case Reconciled::Kind::kFailed:
      ++metrics_.failed;
      log_.warning("reconcile failed; trying again", {{"key", to_string(key)}, {"error", result.error().message}});
      queue_.add_failed(key, priority, result.error().retry_after.value_or(milliseconds(0)));
      break;
    case Reconciled::Kind::kTerminal:
      ++metrics_.terminal;
      queue_.forget(key);
      log_.error("reconcile failed for good", {{"key", to_string(key)}, {"error", result.error().message}});
      break;
  }
  schedule();
}

}  // namespace pitcrew::kube
