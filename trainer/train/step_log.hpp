#pragma once

#include <memory>
#include <string>

#include "lib/base/file.hpp"
#include "lib/base/strong.hpp"
#include "trainer/train/step_meter.hpp"
#include "trainer/train/step_parts.hpp"

namespace pitcrew::trainer {

// steps.jsonl, beside the checkpoints: one line per step of the history that survived.
//
//   {"step":12,"loss":2.3456,"bits":"4002c3c9eecbfb16","epoch":3,"samples":96,"seconds":0.251,"tokensPerSecond":65300,
//    "dataWait":0.0001,"stall":0,"memory":1234567,"mfu":0.52}
//   {"step":100,"kind":"evaluation","loss":2.1,"bits":"4000cccccccccccd","epoch":3,"samples":64}
//
// `loss` is the mean over the step's tokens in double, `bits` the same double's bits in hexadecimal; `samples` is how
// many the run has used, or the evaluation held out; the rest is rank 0's StepMeasure;
// `"reproducible":false` stands where NCCL adds gradients. Lines that don't have "kind" are
// training steps.
//
// In object storage it is one object for each checkpoint: see StepParts.
//
// Owned by rank 0's training thread. An older epoch's writer that still lives writes to a file that has no name any
// more.
class StepLog {
 public:
  // Takes the log over at `resumed`: lines of later steps, and a torn last one, are cut off before anything is written.
  // Durable when it returns.
  static Result<StepLog> open(FileSystem& files, const std::string& folder, Step resumed, EpochNumber epoch);

  Status append(Step step, double loss, uint64_t samples, const StepMeasure& measure);
  Status append_evaluation(Step step, double loss, uint64_t samples);
  // All lines so far survive a power loss, once settle() has returned too: to be called before a checkpoint of the last
  // step can become complete.
  Status sync();
  // Waits for what sync() began, where that takes a network. From any thread.
  Status settle();
  // Ends what settle() waits for.
  void abort();
  // What was missing or damaged when the log was opened; empty: every step up to `resumed` is there.
  const std::string& gap() const { return gap_; }

 private:
  StepLog(std::unique_ptr<File> file, uint64_t size, EpochNumber epoch, std::string gap)
      : file_(std::move(file)), size_(size), epoch_(epoch), gap_(std::move(gap)) {}
  StepLog(std::unique_ptr<StepParts> parts, EpochNumber epoch, std::string gap)
      : parts_(std::move(parts)), size_(0), epoch_(epoch), gap_(std::move(gap)) {}
  Status write(Step step, const std::string& line);

  std::unique_ptr<File> file_;  // or
  std::unique_ptr<StepParts> parts_;
  uint64_t size_;
  EpochNumber epoch_;
  std::string gap_;
};

}  // namespace pitcrew::trainer
