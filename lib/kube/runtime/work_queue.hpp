#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "lib/base/clock.hpp"
#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

// More urgent work first.
namespace priority {
inline constexpr int kInitial = -100;  // the first list after a start: must not delay what a user just made
inline constexpr int kNormal = 0;
inline constexpr int kUrgent = 100;  // a node or a launcher has failed
}  // namespace priority

struct WorkQueueSettings {
  Duration backoff_first = milliseconds(5);
  Duration backoff_limit = minutes(5);
};

struct WorkQueueMetrics {
  uint64_t adds = 0;
  uint64_t retries = 0;
  uint64_t processed = 0;
  Duration queued{0};  // summed over what was taken out
  Duration worked{0};  // summed over what was done
};

// Keys to reconcile. No key is worked on twice at once, none is lost, many adds of one key are one run, and of many
// waits the earliest counts (client-go's queue with controller-runtime's priorities). Pure: the owner asks when to look
// again.
class WorkQueue {
 public:
  explicit WorkQueue(const Clock& clock, WorkQueueSettings settings = {}) : clock_(clock), settings_(settings) {}

  // A key that is queued already keeps the higher priority; one that is being worked on is queued again when done.
  void add(const ObjectKey& key, int priority = priority::kNormal);
  // One waiting entry a key: the earliest time, the highest priority.
  void add_after(const ObjectKey& key, Duration delay, int priority = priority::kNormal);
  // After the key's own back-off, which doubles with every call until forget(), or `at_least` where that is longer.
  void add_failed(const ObjectKey& key, int priority = priority::kNormal, Duration at_least = Duration(0));
  void forget(const ObjectKey& key) { failures_.erase(key); }
  int failures(const ObjectKey& key) const;

  struct Item {
    ObjectKey key;
    int priority = 0;
  };
  // The next key, which counts as being worked on until done(); nothing where none is ready.
  std::optional<Item> take();
  void done(const ObjectKey& key);

  // When the first waiting key becomes ready; nothing where none waits.
  std::optional<Instant> next_ready() const;

  // Takes no more adds and drops what waits; what is being worked on may finish. Drained: nothing is left of it.
  void shut_down();
  bool shutting_down() const { return shutting_down_; }
  bool drained() const { return shutting_down_ && ready_.empty() && processing_.empty(); }

  size_t depth() const { return ready_.size(); }
  size_t waiting() const { return waiting_.size(); }
  size_t processing() const { return processing_.size(); }
  // How long the oldest of those being worked on has been: what shows a stuck worker.
  Duration longest_running() const;
  const WorkQueueMetrics& metrics() const { return metrics_; }

 private:
  struct Rank {
    int priority = 0;
    uint64_t sequence = 0;
    bool operator<(const Rank& other) const {
      return priority != other.priority ? priority > other.priority : sequence < other.sequence;
    }
  };
  struct Queued {
    Rank rank;
    Instant since;
  };
  struct Waiting {
    Instant at;
    uint64_t sequence = 0;
    int priority = 0;
  };
  struct Processing {
    Instant since;
    std::optional<int> again;  // added meanwhile, with this priority
  };
  void enqueue(const ObjectKey& key, int priority, Instant since);
  void promote();

  const Clock& clock_;
  WorkQueueSettings settings_;
  uint64_t sequence_ = 0;
  bool shutting_down_ = false;
  std::map<ObjectKey, Queued> queued_;
  std::map<Rank, ObjectKey> ready_;
  std::map<ObjectKey, Waiting> waiting_;
  std::map<std::pair<Instant, uint64_t>, ObjectKey> timers_;
  std::map<ObjectKey, Processing> processing_;
  std::map<ObjectKey, int> failures_;
  WorkQueueMetrics metrics_;
};

}  // namespace pitcrew::kube
