#include "lib/kube/runtime/work_queue.hpp"

#include <algorithm>

namespace pitcrew::kube {

void WorkQueue::add(const ObjectKey& key, int priority) {
  if (shutting_down_) return;
  ++metrics_.adds;
  if (const auto working = processing_.find(key); working != processing_.end()) {
    working->second.again = std::max(working->second.again.value_or(priority), priority);
    return;
  }
  enqueue(key, priority, clock_.now());
}

void WorkQueue::enqueue(const ObjectKey& key, int priority, Instant since) {
  const auto known = queued_.find(key);
  if (known == queued_.end()) {
    const Rank rank{priority, ++sequence_};
    queued_[key] = {rank, since};
    ready_[rank] = key;
    return;
  }
  if (known->second.rank.priority >= priority) return;
  // A raised key goes to the end of its new level.
  ready_.erase(known->second.rank);
  known->second.rank = {priority, ++sequence_};
  ready_[known->second.rank] = key;
}

void WorkQueue::add_after(const ObjectKey& key, Duration delay, int priority) {
  if (shutting_down_) return;
  if (delay <= Duration(0)) return add(key, priority);
  const Instant at = clock_.now() + delay;
  const auto known = waiting_.find(key);
  if (known != waiting_.end()) {
    known->second.priority = std::max(known->second.priority, priority);
    if (known->second.at <= at) return;
    timers_.erase({known->second.at, known->second.sequence});
    known->second.at = at;
    known->second.sequence = ++sequence_;
    timers_[{at, known->second.sequence}] = key;
    return;
  }
  const Waiting waiting{at, ++sequence_, priority};
  waiting_[key] = waiting;
  timers_[{at, waiting.sequence}] = key;
}

void WorkQueue::add_failed(const ObjectKey& key, int priority, Duration at_least) {
  if (shutting_down_) return;
  ++metrics_.retries;
  int& failures = failures_[key];
  Duration delay = settings_.backoff_first;
  for (int i = 0; i < failures && delay < settings_.backoff_limit; ++i) delay *= 2;
  failures = std::min(failures + 1, 1000);
  add_after(key, std::max(at_least, std::min(delay, settings_.backoff_limit)), priority);
}

int WorkQueue::failures(const ObjectKey& key) const {
  const auto found = failures_.find(key);
  return found == failures_.end() ? 0 : found->second;
}

void WorkQueue::promote() {
  const Instant now = clock_.now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const ObjectKey key = timers_.begin()->second;
    const int priority = waiting_[key].priority;
    timers_.erase(timers_.begin());
    waiting_.erase(key);
    add(key, priority);
  }
}

std::optional<WorkQueue::Item> WorkQueue::take() {
  promote();
  if (ready_.empty()) return std::nullopt;
  const auto first = ready_.begin();
  Item item{first->second, first->first.priority};
  ready_.erase(first);
  const auto queued = queued_.find(item.key);
  const Instant now = clock_.now();
  metrics_.queued += now - queued->second.since;
  queued_.erase(queued);
  processing_[item.key] = {now, std::nullopt};
  return item;
}

void WorkQueue::done(const ObjectKey& key) {
  const auto found = processing_.find(key);
  if (found == processing_.end()) return;
  const Processing ended = found->second;
  processing_.erase(found);
  ++metrics_.processed;
  metrics_.worked += clock_.now() - ended.since;
  if (ended.again && !shutting_down_) enqueue(key, *ended.again, clock_.now());
}

std::optional<Instant> WorkQueue::next_ready() const {
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->first.first;
}

void WorkQueue::shut_down() {
  shutting_down_ = true;
  queued_.clear();
  ready_.clear();
  waiting_.clear();
  timers_.clear();
}

Duration WorkQueue::longest_running() const {
  Duration longest{0};
  for (const auto& [key, working] : processing_) longest = std::max(longest, clock_.now() - working.since);
  return longest;
}

}  // namespace pitcrew::kube
