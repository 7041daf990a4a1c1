#pragma once

#include <deque>
#include <map>
#include <memory>
#include <span>

#include "agent/probe/nvml/library.hpp"
#include "agent/probe/observation.hpp"

namespace pitcrew::agent::nvml {

// XIDs as NVML tells them: code and GPU, without what the kernel's log has beside (registers, units, text). Owned by
// its task, one thread; frees its event set.
class XidEvents {
 public:
  XidEvents() = default;
  ~XidEvents();
  XidEvents(const XidEvents&) = delete;
  XidEvents& operator=(const XidEvents&) = delete;

  // What has come since the last look, `source` nvml; never waits. Nothing where no GPU tells events.
  Result<std::vector<Observation>> look(const std::shared_ptr<const Library>& library, Instant now);

 private:
  void free_set();

  std::shared_ptr<const Library> library_;
  void* set_ = nullptr;
  std::map<void*, std::string> names_;  // UUIDs by handle
  uint64_t told_ = 0;
};

// Makes one event of an XID that both the kernel's log and NVML tell. The log's has more in it and is passed on at
// once; NVML's waits for it a while, and goes on only where the log stays silent (it can't be read, or was overrun).
// Devices are compared as they are: name GPUs alike before. One thread; bounded.
class XidMerge {
 public:
  // `patience`: how far apart the two may be.
  explicit XidMerge(Duration patience = seconds(2)) : patience_(patience) {}

  // What is to be judged now, in order; other observations pass. Call it without any too: what has waited comes out.
  std::vector<Observation> take(std::vector<Observation> observations, Instant now);
  // When something that waits comes out.
  std::optional<Instant> wake() const;

 private:
  static constexpr size_t kMax = 256;
  bool told_by_log(const Observation& event) const;

  Duration patience_;
  std::deque<Observation> log_;      // XIDs of the log of late
  std::deque<Observation> waiting_;  // NVML's
};

}  // namespace pitcrew::agent::nvml
