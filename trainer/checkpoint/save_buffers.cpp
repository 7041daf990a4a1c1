#include "trainer/checkpoint/save_buffers.hpp"

#include <algorithm>
#include <cstring>

namespace pitcrew::trainer {

Status SaveBuffers::add(SnapshotMemory memory) {
  auto buffer = std::make_unique<Buffer>(Buffer{.memory = std::move(memory)});
  if (copier_.makes_digests()) {
    PITCREW_ASSIGN(buffer->digests, copier_.allocate_host(std::max<uint64_t>(1, chunks_) * sizeof(uint64_t)));
  }
  buffer->ready = !copier_.registers();
  const std::lock_guard lock(mutex_);
  if (!buffer->ready) unready_.push_back(buffer.get());
  buffers_.push_back(std::move(buffer));
  return {};
}

void SaveBuffers::prepare() {
  const std::lock_guard lock(mutex_);
  if (!unready_.empty() && !preparer_.joinable()) preparer_ = std::jthread([this](std::stop_token stop) { run(stop); });
  changed_.notify_all();
}

void SaveBuffers::run(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !unready_.empty(); })) {
    Buffer* buffer = unready_.front();
    lock.unlock();
    Status done = buffer->memory.take_pages();
    if (done) {
      auto registered = copier_.register_host(buffer->memory.data(), buffer->memory.bytes());
      if (registered) {
        buffer->registered = std::move(*registered);
      } else {
        log_.warning("checkpoints are copied through memory that is not page-locked, which is slower",
                     {{"why", registered.error().message}});
      }
    } else {
      log_.error("a buffer for checkpoints can't be used", {{"why", done.error().message}});
    }
    lock.lock();
    buffer->ready = done.ok();
    if (!done) failed_ = done.error().message;
    unready_.pop_front();
    changed_.notify_all();
  }
}

void SaveBuffers::wait_prepared() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return unready_.empty() || !preparer_.joinable(); });
}

void SaveBuffers::clear() {
  if (preparer_.joinable()) {
    preparer_.request_stop();
    preparer_.join();
    preparer_ = {};
  }
  const std::lock_guard lock(mutex_);
  unready_.clear();
  buffers_.clear();
}

std::string SaveBuffers::why_none() const {
  const std::lock_guard lock(mutex_);
  if (!unready_.empty()) return "the buffers' memory is still being taken and registered";
  if (!failed_.empty()) return "a buffer can't be used: " + failed_;
  return "every buffer is still in use (saves are asked for faster than they are done)";
}

size_t SaveBuffers::size() const {
  const std::lock_guard lock(mutex_);
  return buffers_.size();
}

SaveBuffers::Buffer* SaveBuffers::take() {
  const std::lock_guard lock(mutex_);
  for (const auto& buffer : buffers_) {
    if (buffer->uses != 0 || !buffer->ready) continue;
    buffer->uses = kFilling;
    return buffer.get();
  }
  return nullptr;
}

void SaveBuffers::use(Buffer* buffer, Use use) {
  const std::lock_guard lock(mutex_);
  buffer->uses |= use;
}

void SaveBuffers::end(Buffer* buffer, Use use) {
  const std::lock_guard lock(mutex_);
  if (poison_ && buffer->uses == use) std::memset(buffer->memory.data(), 0xEE, buffer->memory.bytes());
  buffer->uses &= ~static_cast<unsigned>(use);
}

SaveBuffers::Buffer* SaveBuffers::counted() {
  const std::lock_guard lock(mutex_);
  for (const auto& buffer : buffers_) {
    if (buffer->uses & kCounted) return buffer.get();
  }
  return nullptr;
}

}  // namespace pitcrew::trainer
