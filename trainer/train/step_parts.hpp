#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "lib/base/strong.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

// The step log where files can't grow: one object for the lines between two checkpoints,
// steps/<first step>-<last step>-e<epoch>.jsonl. In the order of their names they are the log. Written by a thread of
// its own, so that training doesn't wait for the network.
//
// Small parts are put together: kMerge in a row that are below kSmall bytes become one, so that there are at most
// kMerge small ones and one for each kSmall bytes of the log. The whole is written before its pieces are removed. After
// a crash between the two, pieces lie within the whole: the next open() removes them, and readers leave them out.
//
// Owned by a StepLog. append() and close() on the training thread; settle() on any.
class StepParts {
 public:
  static constexpr size_t kMerge = 16;
  static constexpr uint64_t kSmall = uint64_t{1} << 20;

  // A part's place in the log.
  struct Name {
    uint64_t first = 0, last = 0, epoch = 0;
  };

  // Removes what came after `resumed`, of parts that reach over it the rest. `gap`: as StepLog::gap().
  static Result<std::unique_ptr<StepParts>> open(std::unique_ptr<Storage> storage, Step resumed, EpochNumber epoch,
                                                 std::string& gap);
  ~StepParts();
  StepParts(const StepParts&) = delete;
  StepParts& operator=(const StepParts&) = delete;

  void append(Step step, const std::string& line);
  // The lines so far become a part, which is on its way when this returns.
  void close();
  // Waits until all parts are durable; the error of the first that is not, which is tried again next time.
  Status settle();
  // Ends what is under way: settle() returns an error.
  void abort() { storage_->abort(); }

 private:
  StepParts(std::unique_ptr<Storage> storage, EpochNumber epoch);
  struct Part {
    Name name;
    std::string lines;
  };
  struct Written {
    Name name;
    uint64_t bytes = 0;
  };
  void write(std::stop_token stop);
  void merge();

  const std::unique_ptr<Storage> storage_;
  const EpochNumber epoch_;
  std::optional<Step> first_;
  Step last_;
  std::string lines_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Part> queue_;
  std::optional<Error> failed_;
  std::vector<Written> written_;  // in the order of the log; the writer's, once it runs
  std::jthread writer_;
};

}  // namespace pitcrew::trainer
