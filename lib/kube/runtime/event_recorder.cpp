#include "lib/kube/runtime/event_recorder.hpp"

#include <algorithm>

#include "lib/base/digest.hpp"

namespace pitcrew::kube {

// Events of one kind about one object, from the first to a time of silence.
struct EventRecorder::Series {
  std::string key;
  Event event;
  int64_t count = 1;
  int64_t written = 0;  // the count that the API knows
  bool created = false;
  bool queued = false;  // in the queue, being written or waiting for a retry
  int attempts = 0;
  Instant last_written;
  Loop::TimerPtr timer;
};

namespace {

// At most `limit` bytes, without a character cut in two.
std::string truncated(const std::string& text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

}  // namespace

EventRecorder::EventRecorder(Loop& loop, Client& client, uint64_t seed, EventRecorderSettings settings, Logger log)
    : loop_(loop),
      client_(client),
      random_(seed),
      settings_(std::move(settings)),
      log_(std::move(log)),
      alive_(std::make_shared<bool>(true)) {}

EventRecorder::~EventRecorder() = default;

void EventRecorder::record(const ObjectReference& regarding, const std::string& type, const std::string& reason,
                           const std::string& action, const std::string& note) {
  ++metrics_.recorded;
  const Instant now = loop_.now();
  const std::string object =
      regarding.uid.empty() ? regarding.kind + "/" + regarding.ns + "/" + regarding.name : regarding.uid;
  const std::string key = object + "|" + type + "|" + reason + "|" + action;
  if (const auto known = series_.find(key); known != series_.end()) {
    const auto series = known->second;
    ++series->count;
    series->event.series_last = now;
    const bool worth_writing = series->written < 2 || now - series->last_written >= settings_.refresh;
    if (!worth_writing) {
      ++metrics_.counted;
    } else {
      push(series);
    }
    return;
  }
  if (objects_.size() > 2 * settings_.series) objects_.clear();
  auto& limiter = objects_.try_emplace(object, settings_.object_rate, settings_.object_burst).first->second;
  if (!limiter.try_take(now)) {
    ++metrics_.dropped;
    return;
  }
  make_room();
  auto series = std::make_shared<Series>();
  series->key = key;
  Event& event = series->event;
  event.metadata.ns = regarding.ns.empty() ? "default" : regarding.ns;
  event.metadata.name = regarding.name + "." + hex64(random_());
  event.regarding = regarding;
  event.event_type = type;
  event.reason = reason;
  event.action = action;
  event.note = truncated(note, settings_.note_limit);
  event.reporting_controller = settings_.controller;
  event.reporting_instance = settings_.instance;
  event.time = now;
  event.series_last = now;
  series_[key] = series;
  push(series);
  arm_sweep();
}

// A bound on what is remembered: the series that has been silent longest goes.
void EventRecorder::make_room() {
  if (series_.size() < settings_.series) return;
  const auto oldest = std::min_element(series_.begin(), series_.end(), [](const auto& a, const auto& b) {
    return a.second->event.series_last < b.second->event.series_last;
  });
  series_.erase(oldest);
}

void EventRecorder::push(const std::shared_ptr<Series>& series) {
  if (series->queued) {
    ++metrics_.counted;
    return;
  }
  if (queue_.size() >= settings_.queue) {
    ++metrics_.dropped;
    return;
  }
  series->queued = true;
  series->attempts = 0;
  queue_.push_back(series);
  pump();
}

void EventRecorder::pump() {
  while (writing_ < settings_.writers && !queue_.empty()) {
    const auto series = queue_.front();
    queue_.pop_front();
    write(series);
  }
  tell_flushed();
}

void EventRecorder::write(const std::shared_ptr<Series>& series) {
  ++writing_;
  ++series->attempts;
  const int64_t count = series->count;
  const auto answered = [this, alive = std::weak_ptr<bool>(alive_), series, count](const Result<Payload>& result) {
    if (!alive.expired()) written(series, count, result ? Status() : Status(result.error()));
  };
  if (!series->created) {
    Event event = series->event;
    event.series_count = count > 1 ? count : 0;
    if (count == 1) event.series_last.reset();
    return client_.create_raw(Event::type(), event.encode(), answered);
  }
  Patch patch;
  patch.body = {{"series", {{"count", count}, {"lastObservedTime", to_rfc3339(*series->event.series_last, 6)}}}};
  client_.patch_raw(Event::type(), series->event.metadata.key(), std::move(patch), answered);
}

void EventRecorder::written(const std::shared_ptr<Series>& series, int64_t count, const Status& status) {
  --writing_;
  const bool exists = status.ok() || status.error().code == Code::kAlreadyExists;
  if (exists) {
    ++metrics_.written;
    series->created = true;
    series->queued = false;
    series->written = count;
    series->last_written = loop_.now();
    if (count < 2 && series->count >= 2) push(series);
  } else if (series->created && status.error().code == Code::kNotFound) {
    series->created = false;  // the API has forgotten it (an hour is their usual life)
    retry(series);
  } else if (status.error().retryable() && series->attempts < settings_.attempts) {
    retry(series);
  } else {
    ++metrics_.dropped;
    series->queued = false;
    log_.debug("event dropped", {{"reason", series->event.reason}, {"error", status.error().message}});
    series_.erase(series->key);
  }
  pump();
}

void EventRecorder::retry(const std::shared_ptr<Series>& series) {
  ++retrying_;
  const Duration wait = std::chrono::duration_cast<Duration>(settings_.retry * (0.5 + random_.uniform()));
  series->timer = loop_.after(wait, [this, alive = std::weak_ptr<bool>(alive_), series] {
    if (alive.expired()) return;
    --retrying_;
    queue_.push_back(series);
    pump();
  });
}

void EventRecorder::arm_sweep() {
  if (sweeper_ || series_.empty()) return;
  sweeper_ = loop_.after(settings_.finish / 2, [this] {
    sweeper_.reset();
    forget_silent();
    arm_sweep();
  });
}

// A series that has fallen silent is written a last time, with its whole count.
void EventRecorder::forget_silent() {
  const Instant now = loop_.now();
  for (auto entry = series_.begin(); entry != series_.end();) {
    const auto series = entry->second;
    if (now - *series->event.series_last < settings_.finish || series->queued) {
      ++entry;
      continue;
    }
    entry = series_.erase(entry);
    if (series->count > series->written) push(series);
  }
  if (series_.empty()) objects_.clear();
}

void EventRecorder::flush(Duration limit, std::function<void()> done) {
  flushed_ = std::move(done);
  flush_limit_ = loop_.after(limit, [this] {
    if (auto told = std::exchange(flushed_, nullptr)) told();
  });
  tell_flushed();
}

void EventRecorder::tell_flushed() {
  if (!flushed_ || queued() > 0) return;
  flush_limit_.reset();
  loop_.post(std::exchange(flushed_, nullptr));
}

}  // namespace pitcrew::kube
