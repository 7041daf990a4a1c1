#include "agent/probe/nvml/connection.hpp"

namespace pitcrew::agent::nvml {

Result<std::shared_ptr<const Library>> Connection::get(Instant now) {
  const std::lock_guard lock(mutex_);
  if (library_) return library_;
  if (last_ && now - tried_ < settings_.again) return *last_;
  tried_ = now;
  auto library = Library::open(settings_.path);
  if (library) {
    library_ = *library;
    last_.reset();
    ++opened_;
    return library_;
  }
  if (library.error().code == Code::kNotFound && !settings_.needed) library = std::shared_ptr<const Library>();
  last_ = library;
  return library;
}

void Connection::failed(const std::shared_ptr<const Library>& library, const Error& error) {
  if (error.code != Code::kUnavailable) return;
  const std::lock_guard lock(mutex_);
  if (library_ == library) library_.reset();
}

uint64_t Connection::opened() const {
  const std::lock_guard lock(mutex_);
  return opened_;
}

}  // namespace pitcrew::agent::nvml
