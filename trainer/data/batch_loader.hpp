#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "lib/base/clock.hpp"
#include "trainer/data/sample_order.hpp"
#include "trainer/data/token_source.hpp"

namespace pitcrew::trainer {

// Which samples of every batch of `batch` a rank reads: `count` of them from `first` on, in runs of `run` that begin
// every `stride` samples; without these two, one after another.
struct BatchShare {
  uint64_t batch = 0;
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t run = 1;
  uint64_t stride = 1;
  // Counted from the batch's first.
  uint64_t sample(uint64_t i) const { return first + i / run * stride + i % run; }
};

// One rank's part of one batch: [share.count][sequence + 1] token numbers, the first of sample number first_sample.
struct Batch {
  uint64_t first_sample = 0;
  std::vector<int32_t> tokens;
};

// Reads batches ahead on a thread of its own, at most `ahead` of them. Owned by the training thread, which alone calls
// it; source, order and clock outlive it. Ends with its destructor, within one read.
class BatchLoader {
 public:
  // The first batch begins with sample `next_sample` of the run.
  BatchLoader(const TokenSource& source, const SampleOrder& order, const Clock& clock, BatchShare share,
              uint64_t next_sample, size_t ahead = 2);
  ~BatchLoader();

  // The next batch; waits where it isn't there yet. An error is final.
  Result<Batch> next();
  // How long next() has waited in all.
  Duration waited() const { return waited_; }

 private:
  void read_ahead();
  Result<Batch> read(uint64_t first_sample) const;

  const TokenSource& source_;
  const SampleOrder& order_;
  const Clock& clock_;
  const BatchShare share_;
  const size_t ahead_;
  Duration waited_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;  // guarded by mutex_, as all below
  std::optional<Error> failure_;
  bool stopping_ = false;
  uint64_t next_sample_;  // the thread's alone
  std::thread thread_;
};

// Held-out samples [first, first + count) as [count][sequence + 1].
Result<std::vector<int32_t>> read_held_out(const TokenSource& source, const SampleOrder& order, uint64_t first,
                                           uint64_t count);

}  // namespace pitcrew::trainer
