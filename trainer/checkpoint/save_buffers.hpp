#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "trainer/checkpoint/memory_folder.hpp"

namespace pitcrew::trainer {

// The host buffers that snapshots are copied into, each as large as this rank's shard. A buffer is free when it is
// neither being filled, nor being written to storage, nor the memory checkpoint that counts. Thread-safe.
class SaveBuffers {
 public:
  enum Use : unsigned { kFilling = 1, kPersisting = 2, kCounted = 4 };
  struct Buffer {
    SnapshotMemory memory;
    unsigned uses = 0;
    std::string checkpoint;  // where it counts, which
  };

  explicit SaveBuffers(bool poison) : poison_(poison) {}
  void add(SnapshotMemory memory);
  void clear();  // none of them in use
  size_t size() const;

  // A free one, from now on being filled; null where there is none.
  Buffer* take();
  void use(Buffer* buffer, Use use);
  // Ends a use; the last one frees the buffer.
  void end(Buffer* buffer, Use use);
  // The one that counts; null: none.
  Buffer* counted();

 private:
  const bool poison_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace pitcrew::trainer
