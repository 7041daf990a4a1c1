#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "trainer/checkpoint/checkpointer.hpp"
#include "trainer/checkpoint/claims.hpp"
#include "trainer/checkpoint/group.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/save_buffers.hpp"
#include "trainer/checkpoint/snapshot.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

// What saving stands on; all outlive it.
struct SaverInput {
  const CheckpointerSettings* settings = nullptr;
  const CheckpointerServices* services = nullptr;
  const RunDescription* run = nullptr;
  const std::vector<StateTensor>* tensors = nullptr;
  const SnapshotLayout* layout = nullptr;
  SaveBuffers* buffers = nullptr;
  Storage* storage = nullptr;            // null: nothing durable
  Claims* claims = nullptr;              // rank 0's, where there is a storage
  const MemoryFolder* memory = nullptr;  // null: the tier is off
  uint64_t claim = 0;
  std::optional<CheckpointName> in_memory;  // of an epoch before: dropped when a newer one counts
};

// Saves in the background. Two threads a rank: one talks with the other ranks and does all but one thing; the other
// writes the shards, so that memory checkpoints go on meanwhile. Every rank is given the same saves in the same order;
// whatever happens to one of them alone (no free buffer, a full disk) becomes the outcome of all.
//
// begin() and the holds on the training thread; abort() on any. The destructor ends the threads, finished or not.
class Saver {
 public:
  explicit Saver(SaverInput input);
  ~Saver();

  void begin(Step step, Json state, SaveKinds kinds, uint64_t request);
  void hold_mutation(size_t tensor);
  void hold_mutation();
  // Waits until nothing is under way. The error that ended all saving, if there was one.
  Status drain();
  std::vector<SaveOutcome> take_outcomes();
  void abort();

  uint64_t skipped() const;
  // The newest that all ranks know to be saved; call after drain().
  std::optional<Step> last_saved(Place place) const;

 private:
  struct Job {
    Step step;
    std::string checkpoint;
    Json state;
    SaveKinds kinds;
    uint64_t request = 0;
    SaveBuffers::Buffer* buffer = nullptr;
    Copier::Ticket copied = 0;
    ShardReport report;
    Status written;  // by the writer
  };

  void coordinate(std::stop_token stop);
  void write_shards(std::stop_token stop);
  Status write_shard(const Job& job, std::stop_token stop);

  // All of these are collectives; an error is the communicator's.
  Status round();
  Status start(Job& job);
  Status save_memory(Job& job);
  Result<std::optional<Error>> collect(const Job& job, const Status& mine, Manifest& manifest);
  Status release_older(SaveBuffers::Buffer* older, const std::string& checkpoint);
  Status commit(Job& job);
  Status commit_manifest(const Manifest& manifest);

  void die(const Error& error);
  void finish_job(Job& job, Place place, SaveOutcome::Result result, uint64_t bytes, std::string message);
  void job_done();
  bool has_launcher() const { return in_.services->launcher != nullptr; }

  SaverInput in_;
  Group group_;
  const Logger log_;
  std::vector<size_t> order_;            // of the layout's places that hold something, as they are copied
  std::vector<uint64_t> first_digest_;   // of each place, in a buffer's digests
  std::vector<Copier::Ticket> tickets_;  // of each tensor, until it was held for; training thread only
  Copier::Ticket last_ticket_ = 0;       // 0: held for
  Copier::Ticket newest_ticket_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Job> queue_;    // begun, not yet looked at
  std::deque<Job> writing_;  // for the writer
  std::deque<Job> written_;  // written here, not yet committed
  uint64_t under_way_ = 0;
  std::optional<Error> dead_;
  std::vector<SaveOutcome> outcomes_;
  uint64_t skipped_ = 0;
  std::optional<Step> durable_step_, memory_step_;

  bool superseded_ = false;  // coordinator only, the same on every rank
  std::optional<CheckpointName> adopted_;
  std::jthread coordinator_, writer_;
};

}  // namespace pitcrew::trainer
