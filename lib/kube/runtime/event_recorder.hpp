#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/client/rate_limiter.hpp"
#include "lib/kube/types/event.hpp"

namespace pitcrew::kube {

struct EventRecorderSettings {
  std::string controller = "pitcrew.dev/operator";
  std::string instance;            // pod name
  Duration refresh = minutes(30);  // of a series that goes on
  Duration finish = minutes(6);    // of silence ends a series
  size_t queue = 1000;             // events waiting to be written; beyond it they are dropped and counted
  size_t series = 1000;            // series remembered
  size_t writers = 8;
  int attempts = 12;
  Duration retry = seconds(10);
  double object_burst = 25;       // events of one object at once,
  double object_rate = 1.0 / 30;  // and a second from then on
  size_t note_limit = 1024;       // bytes (the API's limit)
};

struct EventMetrics {
  uint64_t recorded = 0;
  uint64_t written = 0;
  uint64_t counted = 0;  // went into a series without a write
  uint64_t dropped = 0;  // queue full, too many of one object, or refused too often
};

// Writes events.k8s.io/v1 events: the first of a kind is created, the second turns it into a series, the rest are
// counted until the series is refreshed or falls silent. Never blocks and never fails its caller. Lives on a Loop.
class EventRecorder {
 public:
  EventRecorder(Loop& loop, Client& client, uint64_t seed, EventRecorderSettings settings, Logger log = {});
  ~EventRecorder();
  EventRecorder(const EventRecorder&) = delete;
  EventRecorder& operator=(const EventRecorder&) = delete;

  // type: Normal or Warning; reason and action in CamelCase; the note is for people and is truncated.
  void record(const ObjectReference& regarding, const std::string& type, const std::string& reason,
              const std::string& action, const std::string& note);
  // Writes what waits; `done` when the queue is empty or the time is up.
  void flush(Duration limit, std::function<void()> done);

  const EventMetrics& metrics() const { return metrics_; }
  size_t queued() const { return queue_.size() + writing_ + retrying_; }

 private:
  struct Series;
  void push(const std::shared_ptr<Series>& series);
  void pump();
  void write(const std::shared_ptr<Series>& series);
  void written(const std::shared_ptr<Series>& series, int64_t count, const Status& status);
  void retry(const std::shared_ptr<Series>& series);
  void forget_silent();
  void make_room();
  void arm_sweep();
  void tell_flushed();

  Loop& loop_;
  Client& client_;
  Random random_;
  EventRecorderSettings settings_;
  Logger log_;
  EventMetrics metrics_;
  std::map<std::string, std::shared_ptr<Series>> series_;
  std::map<std::string, RateLimiter> objects_;  // by UID
  std::deque<std::shared_ptr<Series>> queue_;
  size_t writing_ = 0;
  size_t retrying_ = 0;
  Loop::TimerPtr sweeper_;
  std::function<void()> flushed_;
  Loop::TimerPtr flush_limit_;
  std::shared_ptr<bool> alive_;  // for callbacks that outlive it
};

// What an event is about.
template <typename T>
ObjectReference reference_to(const T& object) {
  const ResourceType& type = T::type();
  return {type.api_version(), type.kind, object.metadata.ns, object.metadata.name, object.metadata.uid};
}

}  // namespace pitcrew::kube
