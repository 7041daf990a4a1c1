#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "lib/base/strong.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

// The step log where files can't grow: one object for the lines between two checkpoints,
// steps/<first step>-<last step>-e<epoch>.jsonl. In the order of their names they are the log. Written by a thread of
// its own, so that training doesn't wait for the network.
//
// Owned by a StepLog. append() and close() on the training thread; settle() on any.
class StepParts {
 public:
  // Removes what came after `resumed`, of parts that reach over it the rest. `gap`: as StepLog::gap().
  static Result<std::unique_ptr<StepParts>> open(std::unique_ptr<Storage> storage, Step resumed, EpochNumber epoch,
                                                 std::string& gap);
  StepParts(std::unique_ptr<Storage> storage, EpochNumber epoch);
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
  struct Part {
    std::string name;
    std::string lines;
  };
  void write(std::stop_token stop);

  const std::unique_ptr<Storage> storage_;
  const EpochNumber epoch_;
  std::optional<Step> first_;
  Step last_;
  std::string lines_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Part> queue_;
  std::optional<Error> failed_;
  std::jthread writer_;
};

}  // namespace pitcrew::trainer
