#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "lib/base/log.hpp"
#include "trainer/checkpoint/copier.hpp"
#include "trainer/checkpoint/memory_folder.hpp"

namespace pitcrew::trainer {

// The host buffers that snapshots are copied into, each as large as this rank's shard. A buffer is free when it is
// neither being filled, nor being written to storage, nor the memory checkpoint that counts. Where the copier wants
// memory registered, that, and taking the memory's pages, goes on in a thread: it takes seconds, and training begins
// meanwhile. Thread-safe; the thread ends with this.
class SaveBuffers {
 public:
  enum Use : unsigned { kFilling = 1, kPersisting = 2, kCounted = 4 };
  struct Buffer {
    SnapshotMemory memory;
    trainer::Buffer digests;     // of the shard's chunks
    trainer::Buffer registered;  // gives the registration back before the memory goes
    unsigned uses = 0;
    bool ready = false;
    std::string checkpoint;  // where it counts, which
  };

  SaveBuffers(bool poison, Copier& copier, uint64_t chunks, Logger log)
      : poison_(poison), copier_(copier), chunks_(chunks), log_(std::move(log)) {}
  Status add(SnapshotMemory memory);
  // Makes ready, in the background, what was added. The machine may be ready at once.
  void prepare();
  // Waits until nothing is being prepared.
  void wait_prepared();
  void clear();  // none of them in use
  size_t size() const;

  // A free one that is ready, from now on being filled; null where there is none.
  Buffer* take();
  std::string why_none() const;
  void use(Buffer* buffer, Use use);
  // Ends a use; the last one frees the buffer.
  void end(Buffer* buffer, Use use);
  // The one that counts; null: none.
  Buffer* counted();

 private:
  void run(std::stop_token stop);

  const bool poison_;
  Copier& copier_;
  const uint64_t chunks_;
  const Logger log_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::deque<Buffer*> unready_;
  std::string failed_;  // why a buffer can't be used
  std::jthread preparer_;
};

}  // namespace pitcrew::trainer
