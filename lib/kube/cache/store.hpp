#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

// The objects of one type as last seen, by key and by any number of indexes. Readers share immutable entries, in the
// order of their keys. Written by its Informer alone; lives on the informer's loop.
template <typename T>
class Store {
 public:
  using Entry = std::shared_ptr<const T>;
  // Puts the values under which an object is found into `values`.
  using IndexFunction = std::function<void(const T& object, std::vector<std::string>& values)>;

  Entry get(const ObjectKey& key) const {
    const auto found = entries_.find(key);
    return found == entries_.end() ? nullptr : *found;
  }
  size_t size() const { return entries_.size(); }
  std::vector<Entry> list() const { return {entries_.begin(), entries_.end()}; }
  template <typename F>
  void for_each(F&& f) const {
    for (const Entry& entry : entries_) f(entry);
  }

  // Adds an index; the objects already there are indexed too.
  void add_index(const std::string& name, IndexFunction function) {
    Index& index = indexes_[name];
    index.function = std::move(function);
    for (const Entry& entry : entries_) index.insert(entry);
  }
  std::vector<Entry> by_index(const std::string& name, const std::string& value) const {
    const auto index = indexes_.find(name);
    if (index == indexes_.end()) return {};
    const auto bucket = index->second.buckets.find(value);
    if (bucket == index->second.buckets.end()) return {};
    return {bucket->second.begin(), bucket->second.end()};
  }

  // Puts an object in; returns what was there under its key.
  Entry put(Entry entry) {
    Entry old = erase(entry->metadata.key());
    for (auto& [name, index] : indexes_) index.insert(entry);
    entries_.insert(std::move(entry));
    return old;
  }
  Entry erase(const ObjectKey& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return nullptr;
    Entry old = *found;
    for (auto& [name, index] : indexes_) index.erase(old);
    entries_.erase(found);
    return old;
  }

 private:
  struct ByKey {
    using is_transparent = void;
    static std::pair<std::string_view, std::string_view> of(const ObjectKey& key) { return {key.ns, key.name}; }
    static std::pair<std::string_view, std::string_view> of(const Entry& entry) {
      return {entry->metadata.ns, entry->metadata.name};
    }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return of(a) < of(b);
    }
  };
  using Entries = std::set<Entry, ByKey>;

  struct Index {
    IndexFunction function;
    std::unordered_map<std::string, Entries> buckets;

    std::vector<std::string> values(const T& object) const {
      std::vector<std::string> result;
      function(object, result);
      return result;
    }
    void insert(const Entry& entry) {
      for (const std::string& value : values(*entry)) buckets[value].insert(entry);
    }
    void erase(const Entry& entry) {
      for (const std::string& value : values(*entry)) {
        const auto bucket = buckets.find(value);
        if (bucket == buckets.end()) continue;
        bucket->second.erase(entry);
        if (bucket->second.empty()) buckets.erase(bucket);
      }
    }
  };

  Entries entries_;
  std::map<std::string, Index> indexes_;
};

// The indexes that controllers need most.
template <typename T>
typename Store<T>::IndexFunction index_by_controller_uid() {
  return [](const T& object, std::vector<std::string>& values) {
    if (const OwnerReference* owner = object.metadata.controller()) values.push_back(owner->uid);
  };
}
template <typename T>
typename Store<T>::IndexFunction index_by_label(std::string label) {
  return [label = std::move(label)](const T& object, std::vector<std::string>& values) {
    const auto found = object.metadata.labels.find(label);
    if (found != object.metadata.labels.end()) values.push_back(found->second);
  };
}
// Of pods: the node that they are bound to.
template <typename T>
typename Store<T>::IndexFunction index_by_node() {
  return [](const T& object, std::vector<std::string>& values) {
    if (!object.node_name.empty()) values.push_back(object.node_name);
  };
}

}  // namespace pitcrew::kube
