#pragma once

#include <string>

#include "lib/base/object_meta.hpp"

namespace pitcrew::kube {

struct ObjectReference {
  std::string api_version;
  std::string kind;
  std::string ns;
  std::string name;
  std::string uid;
  bool operator==(const ObjectReference&) const = default;
};

// events.k8s.io/v1 Event: what a person reads in `kubectl describe`.
struct Event {
  ObjectMeta metadata;
  ObjectReference regarding;
  std::string event_type;  // Normal, Warning
  std::string reason;      // CamelCase
  std::string action;
  std::string note;  // at most 1 KiB
  std::string reporting_controller;
  std::string reporting_instance;
  std::optional<Instant> time;
  int64_t series_count = 0;  // 0: not a series
  std::optional<Instant> series_last;
  bool operator==(const Event&) const = default;

  static const ResourceType& type();
  static Result<Event> decode(const Json& json);
  Json encode() const;
};

}  // namespace pitcrew::kube
