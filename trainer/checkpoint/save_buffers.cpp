#include "trainer/checkpoint/save_buffers.hpp"

#include <cstring>

namespace pitcrew::trainer {

void SaveBuffers::add(SnapshotMemory memory) {
  const std::lock_guard lock(mutex_);
  buffers_.push_back(std::make_unique<Buffer>(Buffer{std::move(memory), 0, {}}));
}

void SaveBuffers::clear() {
  const std::lock_guard lock(mutex_);
  buffers_.clear();
}

size_t SaveBuffers::size() const {
  const std::lock_guard lock(mutex_);
  return buffers_.size();
}

SaveBuffers::Buffer* SaveBuffers::take() {
  const std::lock_guard lock(mutex_);
  for (const auto& buffer : buffers_) {
    if (buffer->uses != 0) continue;
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
