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

// Which samples of every batch a rank reads: sequences [first, first + count) of each batch of `batch`.
struct BatchShare {
  uint64_t batch = 0;
  uint64_t first = 0;
  uint64_t count = 0;
};

// One rank's part of one batch: [share.count][sequence + 1] token numbers; sample numbers are first_sample and up.
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
