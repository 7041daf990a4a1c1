#include "lib/local/api/watch_hub.hpp"

#include <algorithm>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::local {

using kube::Payload;
using kube::WatchEventType;

struct WatchHub::Watch {
  Interest interest;
  kube::Transport::WatchSink sink;
  uint64_t told = 0;  // the version of what was said last
  bool open = true;
  Loop::TimerPtr timeout;
  Loop::TimerPtr bookmark;
};

class WatchHub::Handle final : public kube::Call {
 public:
  Handle(std::weak_ptr<WatchHub*> hub, std::shared_ptr<Watch> watch) : hub_(std::move(hub)), watch_(std::move(watch)) {}
  ~Handle() override {
    watch_->open = false;
    if (const auto hub = hub_.lock()) (*hub)->remove(watch_);
  }

 private:
  std::weak_ptr<WatchHub*> hub_;
  std::shared_ptr<Watch> watch_;
};

bool WatchHub::Interest::matches(const Json& object) const {
  if (!ns.empty()) {
    const std::string* actual = text_at(object, "metadata.namespace");
    if (actual == nullptr || *actual != ns) return false;
  }
  return labels.matches_labels(object) && fields.matches_fields(object);
}

WatchHub::WatchHub(Loop& loop, const ResourceType& type, size_t history, Duration bookmark_every,
                   const uint64_t& version)
    : loop_(loop),
      type_(type),
      limit_(history),
      bookmark_every_(bookmark_every),
      version_(version),
      self_(std::make_shared<WatchHub*>(this)) {}

WatchHub::~WatchHub() = default;

void WatchHub::publish(Event event) {
  history_.push_back(std::move(event));
  if (history_.size() > limit_) {
    forgotten_ = history_.front().version;
    history_.pop_front();
  }
  const Event told = history_.back();
  Payload leaving;
  dispatch(general_, told, leaving);
  if (by_node_.empty() && by_name_.empty()) return;

  const Json& object = **told.object.json();
  const auto route = [&](const std::map<std::string, Watches>& routes, const std::string* key) {
    if (key == nullptr) return;
    if (const auto found = routes.find(*key); found != routes.end()) dispatch(found->second, told, leaving);
  };
  route(by_name_, text_at(object, "metadata.name"));
  const std::string* node = text_at(object, "spec.nodeName");
  route(by_node_, node);
  if (told.old.empty()) return;
  const std::string* before = text_at(**told.old.json(), "spec.nodeName");
  if (before != nullptr && (node == nullptr || *before != *node)) route(by_node_, before);
}

void WatchHub::dispatch(const Watches& watches, const Event& event, Payload& leaving) {
  // A sink may end its watch, which changes the list.
  const Watches copy = watches;
  for (const auto& watch : copy) {
    if (watch->open) tell(*watch, event, leaving);
  }
}

// What an event is to one watch: an object that begins to match is added, one that ceases to is deleted.
void WatchHub::tell(Watch& watch, const Event& event, Payload& leaving) {
  const bool now = event.type != WatchEventType::kDeleted && watch.interest.matches(**event.object.json());
  const bool before = !event.old.empty() && watch.interest.matches(**event.old.json());
  if (!now && !before) return;
  watch.told = event.version;
  if (now) {
    return watch.sink.on_event({before ? WatchEventType::kModified : WatchEventType::kAdded, event.object});
  }
  if (event.type == WatchEventType::kDeleted) return watch.sink.on_event({WatchEventType::kDeleted, event.object});
  if (leaving.empty()) {
    Json last = **event.old.json();
    last["metadata"]["resourceVersion"] = std::to_string(event.version);
    leaving = Payload::of(std::move(last));
  }
  watch.sink.on_event({WatchEventType::kDeleted, leaving});
}

std::shared_ptr<WatchHub::Watch> WatchHub::add(Interest interest, kube::Transport::WatchSink sink) {
  auto watch = std::make_shared<Watch>();
  watch->interest = std::move(interest);
  watch->sink = std::move(sink);
  watch->told = version_;
  const std::string* key = nullptr;
  auto* routes = routes_of(watch->interest, key);
  (routes == nullptr ? general_ : (*routes)[*key]).push_back(watch);
  if (watch->interest.timeout > Duration(0)) {
    watch->timeout = loop_.after(watch->interest.timeout, [weak = std::weak_ptr<Watch>(watch)] {
      if (const auto ended = weak.lock()) end(*ended, {});
    });
  }
  if (watch->interest.bookmarks) arm_bookmark(watch);
  return watch;
}

std::map<std::string, WatchHub::Watches>* WatchHub::routes_of(const Interest& interest, const std::string*& key) {
  if ((key = interest.fields.required("spec.nodeName")) != nullptr) return &by_node_;
  if ((key = interest.fields.required("metadata.name")) != nullptr) return &by_name_;
  return nullptr;
}

void WatchHub::remove(const std::shared_ptr<Watch>& watch) {
  const std::string* key = nullptr;
  auto* routes = routes_of(watch->interest, key);
  Watches& watches = routes == nullptr ? general_ : (*routes)[*key];
  watches.erase(std::remove(watches.begin(), watches.end(), watch), watches.end());
  if (routes != nullptr && watches.empty()) routes->erase(*key);
}

bool WatchHub::open(uint64_t since, kube::CallPtr& call, Interest interest, kube::Transport::WatchSink sink) {
  if (since < forgotten_) return false;
  const auto watch = add(std::move(interest), std::move(sink));
  call = std::make_unique<Handle>(self_, watch);
  const auto first = std::upper_bound(history_.begin(), history_.end(), since,
                                      [](uint64_t version, const Event& event) { return version < event.version; });
  const std::vector<Event> missed(first, history_.end());
  for (const Event& event : missed) {
    Payload leaving;
    if (watch->open) tell(*watch, event, leaving);
  }
  return true;
}

kube::CallPtr WatchHub::open(const std::vector<Payload>& initial, bool mark_end, Interest interest,
                             kube::Transport::WatchSink sink) {
  const auto watch = add(std::move(interest), std::move(sink));
  auto call = std::make_unique<Handle>(self_, watch);
  for (const Payload& object : initial) {
    if (watch->open) watch->sink.on_event({WatchEventType::kAdded, object});
  }
  if (mark_end && watch->open) bookmark(*watch, true);
  return call;
}

void WatchHub::bookmark(Watch& watch, bool initial_end) {
  Json object = {{"kind", type_.kind},
                 {"apiVersion", type_.api_version()},
                 {"metadata", {{"resourceVersion", std::to_string(version_)}}}};
  if (initial_end) object["metadata"]["annotations"]["k8s.io/initial-events-end"] = "true";
  watch.told = version_;
  watch.sink.on_event({WatchEventType::kBookmark, Payload::of(std::move(object))});
}

void WatchHub::arm_bookmark(const std::shared_ptr<Watch>& watch) {
  watch->bookmark =
      loop_.after(bookmark_every_, [this, hub = std::weak_ptr<WatchHub*>(self_), weak = std::weak_ptr<Watch>(watch)] {
        const auto due = weak.lock();
        if (!due || !due->open || hub.expired()) return;
        bookmark(*due, false);
        arm_bookmark(due);
      });
}

void WatchHub::end(Watch& watch, Status status) {
  if (!watch.open) return;
  watch.open = false;
  watch.bookmark.reset();
  const auto on_end = watch.sink.on_end;
  on_end(std::move(status));
}

void WatchHub::compact() {
  history_.clear();
  forgotten_ = version_;
}

void WatchHub::close_all() {
  Watches all = general_;
  for (const auto* routes : {&by_node_, &by_name_}) {
    for (const auto& [key, watches] : *routes) all.insert(all.end(), watches.begin(), watches.end());
  }
  for (const auto& watch : all) end(*watch, {});
}

size_t WatchHub::size() const {
  size_t count = 0;
  const auto add = [&](const Watches& watches) {
    count += static_cast<size_t>(
        std::count_if(watches.begin(), watches.end(), [](const auto& watch) { return watch->open; }));
  };
  add(general_);
  for (const auto* routes : {&by_node_, &by_name_}) {
    for (const auto& [key, watches] : *routes) add(watches);
  }
  return count;
}

}  // namespace pitcrew::local
