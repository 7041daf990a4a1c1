#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.hpp"
#include "lib/base/environment.hpp"
#include "lib/base/log.hpp"
#include "lib/base/progress_page.hpp"
#include "trainer/checkpoint/copier.hpp"
#include "trainer/checkpoint/launcher_client.hpp"
#include "trainer/checkpoint/slices.hpp"
#include "trainer/comm/comm.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew {
class FileSystem;
}

namespace pitcrew::trainer {

// Who saves, and where.
struct CheckpointerSettings {
  CheckpointSettings checkpoint;  // PITCREW_CHECKPOINT; an empty path: nothing durable
  JobIdentity job;
  EpochNumber epoch;
  Slot slot;                // of this replica (GROUP_RANK)
  uint32_t local_rank = 0;  // within the replica
  uint32_t local_ranks = 1;
  std::optional<Holders> holders;  // of what this rank holds; unset: all ranks hold the same
  std::string memory_folder;       // PITCREW_MEMORY; empty: no memory tier
  Duration beat_every = seconds(10);
  Duration living_within = seconds(30);  // a foreign claim whose beat stands still for so long is taken over
  bool poison_released = false;          // fill released buffers with 0xEE: shows who reads them afterwards
};

// What a checkpoint was made by, compared when it is resumed.
struct RunDescription {
  std::string config_hash;
  std::string dataset;  // fingerprint; another dataset is an error
  Json bits_depend_on;  // an object: threads, instruction set, device model, plans …; a difference: not bit for bit
};

// What the checkpointer stands on; all outlive it.
struct CheckpointerServices {
  FileSystem* files = nullptr;          // null: the machine's
  const Clock* clock = nullptr;         // required
  std::function<void(Duration)> pause;  // waits while a foreign claim is watched; unset: sleeps
  Comm* comm = nullptr;                 // of its own, used by nobody else once restore() has returned; null: one rank
  LauncherClient* launcher = nullptr;   // null: no launcher, so no peers' memory
  Copier* copier = nullptr;             // required
  // What must be durable before a checkpoint counts, as a log of its steps. On a thread of rank 0's saver, before each
  // manifest; an error fails that save.
  std::function<Status()> before_commit;
  page::Writer* page = nullptr;  // used within the training thread's calls only
  Logger log;
};

// What training goes on from.
struct Restored {
  Step step;
  uint64_t claim = 0;
  Json state;  // the small state given to begin(): sample order, generator, schedule
  page::Source source = page::Source::kNone;
  bool bit_for_bit = true;
  std::string why_not;               // where not bit for bit: what differs
  std::vector<std::string> damaged;  // checkpoints that were tried first and could not be used, each with the reason
};

// One save that came to its end.
struct SaveOutcome {
  enum class Result { kSaved, kSkipped, kFailed };
  Step step;
  Place place = Place::kDurable;
  Result result = Result::kSaved;
  uint64_t bytes = 0;   // of the whole checkpoint
  std::string message;  // why it was skipped or failed, with the remedy
};

struct SaveKinds {
  bool durable = false;
  bool memory = false;
};

// Saves and restores the training state: the whole of it, from all ranks together. docs/checkpoint-format.md says what
// is written and why it survives a crash at any point.
//
// Owned and called by the training thread of each rank; every rank makes the same calls in the same order. Saving goes
// on in threads of its own: none of begin(), hold_mutation() and poll() waits for storage, peers or the launcher. An
// error of a save is an outcome, not an end: training goes on and older checkpoints stay. Ends with finish(), or with
// abort() and the destructor, which leaves an unfinished save without its manifest.
class Checkpointer {
 public:
  // Claims the checkpoint folder for this epoch and prepares the buffers. Collective. `tensors` are the state, in the
  // order in which the optimizer will write it; names, shapes and addresses stay fixed. Errors: kConflict (another job
  // or a newer epoch writes to the folder), kUnsupported (s3:// without its library), storage errors.
  static Result<std::unique_ptr<Checkpointer>> open(CheckpointerSettings settings, CheckpointerServices services,
                                                    std::vector<StateTensor> tensors, RunDescription run);
  virtual ~Checkpointer() = default;

  // Fills the tensors from the newest checkpoint whose every byte is right, agreed by all ranks; nothing where the
  // folder and the memories hold no checkpoint at all. Collective; once, before the first step. The proposal is what
  // the operator knew: a newer one that is found is preferred. Errors: kDataLoss (there are checkpoints and all are
  // damaged; named), kInvalidArgument (of another model or dataset).
  virtual Result<std::optional<Restored>> restore(std::optional<ResumePoint> proposal) = 0;

  // Whether the schedule asks for a save after this step. The same on every rank where it goes by steps; by time, rank
  // 0 decides and `due` has to be handed to the others by the caller.
  virtual SaveKinds due(Step step) = 0;

  // Starts a save of the state as it is after `step`. Returns at once; the copy goes on while the next step computes.
  // `state` is small: sample order, generator, schedule. Asked for again at a step that is saved: nothing to do.
  virtual void begin(Step step, Json state, SaveKinds kinds, uint64_t request = 0) = 0;

  // To be called before the optimizer writes tensor number `index` (or any, without it): waits only for the part of it
  // that is not copied yet.
  virtual void hold_mutation(size_t index) = 0;
  virtual void hold_mutation() = 0;

  // At each step's boundary: what has come to its end since the last call. Rank 0's writes the page and tells the
  // launcher.
  virtual std::vector<SaveOutcome> poll() = 0;

  // Saves durably now (in memory where nothing durable is kept) unless this step is saved already, waits for all saves,
  // and releases the claim. For planned stops and the end. Collective.
  virtual Status finish(Step step, Json state, uint64_t request = 0) = 0;

  // Ends everything that blocks. From any thread.
  virtual void abort() = 0;

  // Why the memory tier is off, with the number of bytes it would need; empty while it is on or not asked for.
  virtual std::string memory_off_reason() const = 0;
  virtual uint64_t claim() const = 0;
  virtual uint64_t skipped() const = 0;     // saves skipped because no buffer was free
  virtual uint64_t bytes_read() const = 0;  // by this rank, in restore()
};

// One checkpoint of a folder, newest first in list_checkpoints().
struct CheckpointSummary {
  std::string name;
  Step step;
  uint64_t claim = 0;
  uint64_t bytes = 0;
  bool intact = false;  // list: manifest and sizes; verify: every byte
  std::string problem;  // where not intact: file, tensor and what is wrong with it
};
Result<std::vector<CheckpointSummary>> list_checkpoints(FileSystem& files, const std::string& path);
// Reads every byte of one checkpoint (`path` is its folder, or the folder of checkpoints: then of the newest).
Result<CheckpointSummary> verify_checkpoint(FileSystem& files, const std::string& path);

// Tensors read by name into host memory, each chunk checked.
struct LoadedTensor {
  StateTensor tensor;  // data points into bytes
  std::vector<std::byte> bytes;
};
struct LoadedCheckpoint {
  Step step;
  Json state;
  std::string config_hash;
  Json bits_depend_on;
  std::vector<LoadedTensor> tensors;
};
// Loads the tensors that `wanted` asks for (all, without it) of one checkpoint, without a communicator.
Result<LoadedCheckpoint> load_tensors(FileSystem& files, const std::string& path,
                                      const std::function<bool(const std::string& name)>& wanted = {});

}  // namespace pitcrew::trainer
