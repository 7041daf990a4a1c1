#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/kube/cache/store.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/kube/watch/watcher.hpp"

namespace pitcrew::kube {

// Keeps a Store of one type up to date by list and watch, and tells handlers what changed. One per type and program;
// destroying it ends the watch. Lives on a Loop. Handlers run on it, in order per object, and should do no more than
// enqueue a key.
template <typename T>
class Informer {
 public:
  using Entry = typename Store<T>::Entry;

  struct Handler {
    // `initial`: part of the first list.
    std::function<void(const Entry& now, bool initial)> on_add;
    std::function<void(const Entry& old, const Entry& now)> on_update;
    // `unseen`: it vanished while the watch was away; `last` is what was known.
    std::function<void(const Entry& last, bool unseen)> on_delete;
  };

  Informer(Loop& loop, Transport& transport, uint64_t seed, WatchScope scope = {}, ReflectorSettings settings = {},
           Logger log = {})
      : log_(log.with({{"kind", T::type().kind}})),
        watcher_(loop, transport, T::type(), seed, std::move(scope), settings, log_,
                 Watcher::Sink{[this](std::vector<Payload> items) { replace(items); },
                               [this](WatchEventType type, const Payload& object) { apply(type, object); },
                               [](const Payload& object) { object.template reduce_to<T>(); }}) {}

  void start() { watcher_.start(); }
  void doubt() { watcher_.doubt(); }

  // Before start(). An object that is deleted and created again under its name is told as a delete and an add.
  void add_handler(Handler handler) { handlers_.push_back(std::move(handler)); }
  // Before start(). What is stored and told in an object's place, with the same key, UID and version: less of it.
  void set_transform(std::function<Entry(const Entry& object)> transform) { transform_ = std::move(transform); }
  // Before start(). Hears of objects that can't be decoded, each time that one comes, before they are dropped; not of
  // deletions.
  void on_undecodable(std::function<void(const Payload& object, const Error& error)> function) {
    undecodable_ = std::move(function);
  }
  // Before start(). Hears of every deletion that the watch shows, of objects that were never stored too.
  void on_gone(std::function<void(const ObjectMeta& metadata)> function) { gone_ = std::move(function); }
  void add_index(const std::string& name, typename Store<T>::IndexFunction function) {
    store_.add_index(name, std::move(function));
  }

  const Store<T>& store() const { return store_; }
  // The first list is in the store and every handler has seen it.
  bool synced() const { return synced_; }
  // Everything up to here has been told to the handlers; 0 before the first list.
  uint64_t resource_version() const { return resource_version_number(watcher_.resource_version()).value_or(0); }
  const WatchMetrics& metrics() const { return watcher_.metrics(); }

 private:
  // What isn't a T (a broken or foreign object) is dropped and logged, never stored.
  Entry decode(const Payload& payload) {
    auto object = payload.as<T>();
    if (object) return transform_ ? transform_(*object) : *std::move(object);
    watcher_.count_undecodable();
    if (undecodable_) undecodable_(payload, object.error());
    log_.warning("dropping an object that can't be decoded", {{"error", object.error().message}});
    return nullptr;
  }

  void put(Entry entry, bool initial) {
    const Entry old = store_.put(entry);
    if (old && old->metadata.uid == entry->metadata.uid) {
      if (old->metadata.resource_version == entry->metadata.resource_version) return;
      for (const Handler& handler : handlers_) {
        if (handler.on_update) handler.on_update(old, entry);
      }
      return;
    }
    if (old) deleted(old, true);
    for (const Handler& handler : handlers_) {
      if (handler.on_add) handler.on_add(entry, initial);
    }
  }

  void deleted(const Entry& last, bool unseen) {
    for (const Handler& handler : handlers_) {
      if (handler.on_delete) handler.on_delete(last, unseen);
    }
  }

  void replace(const std::vector<Payload>& items) {
    std::set<ObjectKey> present;
    std::vector<Entry> entries;
    entries.reserve(items.size());
    for (const Payload& item : items) {
      if (Entry entry = decode(item)) {
        present.insert(entry->metadata.key());
        entries.push_back(std::move(entry));
      }
    }
    for (const Entry& known : store_.list()) {
      if (present.count(known->metadata.key()) > 0) continue;
      store_.erase(known->metadata.key());
      deleted(known, true);
    }
    for (Entry& entry : entries) put(std::move(entry), !synced_);
    synced_ = true;
  }

  // What was deleted goes whether or not it can be read: it may have become unreadable since it was stored.
  void remove(const Payload& object) {
    const auto readable = object.template as<T>();
    const ObjectMeta metadata = readable ? (*readable)->metadata : metadata_of(object);
    if (gone_) gone_(metadata);
    const Entry known = store_.get(metadata.key());
    if (!known || known->metadata.uid != metadata.uid) return;
    store_.erase(metadata.key());
    deleted(!readable ? known : transform_ ? transform_(*readable) : *readable, false);
  }

  static ObjectMeta metadata_of(const Payload& object) {
    ObjectMeta metadata;
    Problems ignored;
    const auto tree = object.json();
    const Json* found = tree ? fields::find(**tree, "metadata") : nullptr;
    if (found != nullptr) read_object_meta(*found, metadata, ignored);
    return metadata;
  }

  void apply(WatchEventType type, const Payload& object) {
    if (type == WatchEventType::kDeleted) return remove(object);
    Entry entry = decode(object);
    if (!entry) return;
    const Entry known = store_.get(entry->metadata.key());
    // A repeated event must not take an object back in time.
    if (known && known->metadata.uid == entry->metadata.uid && older(*entry, *known)) return;
    put(std::move(entry), false);
  }

  static bool older(const T& a, const T& b) {
    const auto va = resource_version_number(a.metadata.resource_version);
    const auto vb = resource_version_number(b.metadata.resource_version);
    return va && vb && *va < *vb;
  }

  Logger log_;
  Store<T> store_;
  std::function<Entry(const Entry&)> transform_;
  std::function<void(const Payload&, const Error&)> undecodable_;
  std::function<void(const ObjectMeta&)> gone_;
  std::vector<Handler> handlers_;
  bool synced_ = false;
  Watcher watcher_;
};

}  // namespace pitcrew::kube
