#pragma once

#include "lib/base/object_meta.hpp"

// Resources that commands read as JSON and nobody else of ours knows.
namespace pitcrew::cli::types {

inline const ResourceType& events() {
  static const ResourceType kType{"events.k8s.io", "v1", "Event", "events", true};
  return kType;
}
inline const ResourceType& claims() {
  static const ResourceType kType{"", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true};
  return kType;
}

}  // namespace pitcrew::cli::types
