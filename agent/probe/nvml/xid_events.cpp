#include "agent/probe/nvml/xid_events.hpp"

#include <algorithm>

namespace pitcrew::agent::nvml {

using F = Library::Functions;

XidEvents::~XidEvents() { free_set(); }

void XidEvents::free_set() {
  if (set_ != nullptr) library_->call(&F::event_set_free, set_);
  set_ = nullptr;
  names_.clear();
}

Result<std::vector<Observation>> XidEvents::look(const std::shared_ptr<const Library>& library, Instant now) {
  if (library != library_) {
    free_set();
    library_ = library;
  }
  if (set_ == nullptr) {
    PITCREW_ASSIGN(const std::vector<Gpu> gpus, list_gpus(*library));
    if (const int code = library->call(&F::event_set_create, &set_); code != abi::kSuccess) {
      set_ = nullptr;
      return error_of("nvmlEventSetCreate", code);
    }
    for (const Gpu& gpu : gpus) {
      if (gpu.lost) continue;
      const int code = library->call(&F::register_events, gpu.device, abi::kEventXid, set_);
      if (code == abi::kSuccess) names_[gpu.device] = gpu.uuid;
      if (code == abi::kSuccess || code == abi::kNotSupported || code == abi::kGpuIsLost) continue;
      free_set();
      return error_of("nvmlDeviceRegisterEvents", code).with_context(gpu.uuid);
    }
  }
  std::vector<Observation> out;
  constexpr size_t kMaxAtOnce = 64;
  while (!names_.empty() && out.size() < kMaxAtOnce) {
    abi::EventData event{};
    const int code = library->call(&F::event_wait, set_, &event, 0u);
    if (code == abi::kTimeout) break;
    if (code == abi::kGpuIsLost) {
      // The event itself: a GPU has gone away. Which one is told by gpu.lost.
      free_set();
      break;
    }
    if (code != abi::kSuccess) {
      free_set();
      return error_of("nvmlEventSetWait_v2", code);
    }
    const auto name = names_.find(event.device);
    if ((event.type & abi::kEventXid) == 0 || name == names_.end()) continue;
    Observation observation;
    observation.kind = kinds::kXid;
    observation.code = static_cast<uint32_t>(event.data);
    observation.device = name->second;
    observation.values["source"] = std::string("nvml");
    observation.text = "XID " + std::to_string(event.data) + " told by NVML";
    observation.id = "nvml/" + to_rfc3339(now, 9) + "/" + std::to_string(++told_);
    observation.time = now;
    out.push_back(std::move(observation));
  }
  return out;
}

bool XidMerge::told_by_log(const Observation& event) const {
  return std::any_of(log_.begin(), log_.end(), [&](const Observation& line) {
    const Duration apart = line.time > event.time ? line.time - event.time : event.time - line.time;
    return line.code == event.code && line.device == event.device && apart <= patience_;
  });
}

std::vector<Observation> XidMerge::take(std::vector<Observation> observations, Instant now) {
  std::vector<Observation> out;
  for (Observation& one : observations) {
    if (one.kind != kinds::kXid) {
      out.push_back(std::move(one));
    } else if (one.word("source") == "nvml") {
      waiting_.push_back(std::move(one));
      if (waiting_.size() > kMax) waiting_.pop_front();
    } else {
      log_.push_back(one);
      if (log_.size() > kMax) log_.pop_front();
      out.push_back(std::move(one));
    }
  }
  std::erase_if(waiting_, [&](const Observation& event) { return told_by_log(event); });
  while (!waiting_.empty() && now - waiting_.front().time >= patience_) {
    // Judged as of now: judgement's time never goes back.
    waiting_.front().time = now;
    out.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  while (!log_.empty() && now - log_.front().time > 2 * patience_) log_.pop_front();
  return out;
}

std::optional<Instant> XidMerge::wake() const {
  if (waiting_.empty()) return std::nullopt;
  return waiting_.front().time + patience_;
}

}  // namespace pitcrew::agent::nvml
