#include "trainer/checkpoint/checkpointer.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "lib/base/file.hpp"
#include "trainer/checkpoint/catalogue.hpp"
#include "trainer/checkpoint/restorer.hpp"
#include "trainer/checkpoint/saver.hpp"

namespace pitcrew::trainer {
namespace {

constexpr size_t kBuffersWithMemory = 3;  // one counts, one is filled, one is written to storage
constexpr size_t kBuffersWithout = 2;

class CheckpointerImpl final : public Checkpointer {
 public:
  CheckpointerImpl(CheckpointerSettings settings, CheckpointerServices services, std::vector<StateTensor> tensors,
                   RunDescription run)
      : settings_(std::move(settings)),
        services_(std::move(services)),
        tensors_(std::move(tensors)),
        run_(std::move(run)),
        group_(services_.comm),
        layout_(tensors_, group_.rank(), group_.size(),
                settings_.holders.value_or(Holders{group_.rank(), group_.size()})),
        buffers_(settings_.poison_released, *services_.copier, layout_.chunks(), services_.log) {
    if (services_.files == nullptr) services_.files = &posix_file_system();
    if (!services_.pause) services_.pause = [](Duration time) { std::this_thread::sleep_for(time); };
  }

  ~CheckpointerImpl() override {
    saver_.reset();
    stop_beating();
  }

  Status start() {
    const std::string& path = settings_.checkpoint.path;
    Status mine;
    if (!path.empty()) {
      auto storage = open_storage(*services_.files, path);
      if (storage) {
        storage_ = std::move(*storage);
      } else {
        mine = storage.error();
      }
    }
    PITCREW_ASSIGN(auto failed, group_.agree(mine));
    if (failed) return *failed;
    if (storage_ && group_.rank() == 0) mine = take_claim();
    PITCREW_ASSIGN(failed, group_.agree(mine));
    if (failed) return *failed;
    // Without a folder that numbers the claims the epoch does: it only grows, too.
    const uint64_t number = storage_ ? (claims_ ? claims_->number() : 0) : settings_.epoch.value;
    PITCREW_ASSIGN(const auto numbers, group_.gather(number));
    claim_ = numbers[0];
    if (settings_.checkpoint.memory_steps && settings_.memory_folder.empty()) {
      memory_off_ = "there is no folder in memory (PITCREW_MEMORY is not set)";
    }
    if (settings_.memory_folder.empty()) return {};
    memory_ = std::make_unique<MemoryFolder>(settings_.memory_folder);
    if (const Status prepared = memory_->prepare(); !prepared) {
      memory_.reset();
      memory_off_ = prepared.error().message;
    }
    return {};
  }

  Result<std::optional<Restored>> restore(std::optional<ResumePoint> proposal) override {
    RestoreInput input{.group = group_,
                       .slot = settings_.slot,
                       .local_rank = settings_.local_rank,
                       .storage = storage_.get(),
                       .memory = memory_.get(),
                       .launcher = services_.launcher,
                       .copier = services_.copier,
                       .tensors = &tensors_,
                       .run = &run_,
                       .log = services_.log};
    PITCREW_ASSIGN(RestoreOutput output, restore_newest(input, proposal));
    bytes_read_ = output.bytes_read;
    PITCREW_TRY(reserve(output));
    if (services_.page != nullptr && group_.rank() == 0) {
      const auto& restored = output.restored;
      services_.page->set_resumed(restored ? std::optional(restored->step) : std::nullopt,
                                  restored ? restored->source : page::Source::kNone);
      const bool durable = restored && (restored->source == page::Source::kFileSystem ||
                                        restored->source == page::Source::kObjectStorage);
      if (durable) services_.page->set_durable(restored->step);
      if (output.in_memory) services_.page->set_memory(output.in_memory->step);
    }
    saver_ = std::make_unique<Saver>(SaverInput{.settings = &settings_,
                                                .services = &services_,
                                                .run = &run_,
                                                .tensors = &tensors_,
                                                .layout = &layout_,
                                                .buffers = &buffers_,
                                                .storage = storage_.get(),
                                                .claims = claims_.get(),
                                                .memory = memory_.get(),
                                                .claim = claim_,
                                                .in_memory = memory_ ? output.in_memory : std::nullopt});
    return std::move(output.restored);
  }

  SaveKinds due(Step step) override {
    SaveKinds kinds;
    const CheckpointSettings& spec = settings_.checkpoint;
    if (storage_) {
      if (spec.every_steps && *spec.every_steps > 0) kinds.durable = step.value % *spec.every_steps == 0;
      if (spec.every_time) {
        const Instant now = services_.clock->now();
        if (!last_due_) last_due_ = now;
        if (now - *last_due_ >= *spec.every_time) {
          kinds.durable = true;
          last_due_ = now;
        }
      }
    }
    if (memory_ && spec.memory_steps && *spec.memory_steps > 0) kinds.memory = step.value % *spec.memory_steps == 0;
    return kinds;
  }

  void begin(Step step, Json state, SaveKinds kinds, uint64_t request) override {
    kinds.durable = kinds.durable && storage_ && begun_durable_ != step;
    kinds.memory = kinds.memory && memory_ && begun_memory_ != step;
    if (!kinds.durable && !kinds.memory) return;
    start_saving(step, std::move(state), kinds, request);
  }

  void hold_mutation(size_t index) override {
    if (saver_) saver_->hold_mutation(index);
  }
  void hold_mutation() override {
    if (saver_) saver_->hold_mutation();
  }

  std::vector<SaveOutcome> poll() override {
    publish();
    return std::exchange(outcomes_, {});
  }

  Status finish(Step step, Json state, uint64_t request) override {
    PITCREW_TRY(saver_->drain());
    const Place place = storage_ ? Place::kDurable : Place::kMemory;
    Status saved;
    if ((storage_ || memory_) && saver_->last_saved(place) != step) {
      buffers_.wait_prepared();
      start_saving(step, std::move(state), {.durable = storage_ != nullptr, .memory = storage_ == nullptr}, request);
      PITCREW_TRY(saver_->drain());
      publish();
      if (saver_->last_saved(place) != step) {
        saved = Error(Code::kInternal,
                      outcomes_.empty() ? "the last save did not come to its end" : outcomes_.back().message);
      }
    }
    publish();
    stop_beating();
    if (claims_) {
      if (const Status released = claims_->release(); !released) {
        services_.log.warning("the claim can't be released; others wait until it is still",
                              {{"error", released.error().message}});
      }
    }
    return saved;
  }

  void abort() override {
    if (saver_) {
      saver_->abort();
    } else {
      if (services_.comm != nullptr) services_.comm->abort();
      if (services_.launcher != nullptr) services_.launcher->abort();
    }
  }

  std::string memory_off_reason() const override { return memory_off_; }
  uint64_t claim() const override { return claim_; }
  uint64_t skipped() const override { return saver_ ? saver_->skipped() : 0; }
  uint64_t bytes_read() const override { return bytes_read_; }

 private:
  Status take_claim() {
    claims_ = std::make_unique<Claims>(*storage_, *services_.clock, services_.pause,
                                       Claims::Settings{.living_within = settings_.living_within});
    PITCREW_TRY(claims_->take(settings_.job, settings_.epoch));
    beater_ = std::jthread([this](std::stop_token stop) {
      std::unique_lock lock(beat_mutex_);
      while (!beat_changed_.wait_for(lock, stop, settings_.beat_every, [] { return false; }) &&
             !stop.stop_requested()) {
        if (const Status beat = claims_->beat(); !beat)
          services_.log.warning("the claim's beat failed", {{"error", beat.error().message}});
      }
    });
    if (const Status removed = remove_unfinished(*storage_, claims_->number(), services_.log); !removed) {
      services_.log.warning("what an earlier epoch left unfinished can't be removed",
                            {{"error", removed.error().message}});
    }
    return {};
  }

  void stop_beating() {
    if (!beater_.joinable()) return;
    beater_.request_stop();
    beater_.join();
  }

  // Takes the memory that saves need, all before the first step. Where a rank has no room for the memory tier, it is
  // off for all of them.
  Status reserve(const RestoreOutput& found) {
    const bool wanted = memory_ && settings_.checkpoint.memory_steps;
    Status mine;
    if (memory_) {
      memory_->remove_reserve(settings_.local_rank);
      if (settings_.local_rank == 0) drop(found.others_in_memory);
    }
    PITCREW_ASSIGN(const auto present, group_.gather(static_cast<uint64_t>(wanted)));
    bool all_want = true;
    for (const uint64_t one : present) all_want = all_want && one != 0;
    if (wanted && !all_want) mine = Error(Code::kUnavailable, "another replica has no memory tier");
    if (wanted && all_want) mine = reserve_files(found.in_memory.has_value());
    PITCREW_ASSIGN(const auto failed, group_.agree(mine));
    if (failed || !wanted) {
      if (failed) {
        memory_off_ = failed->message;
        services_.log.warning("checkpoints are not kept in memory", {{"why", memory_off_}});
      }
      buffers_.clear();
      memory_.reset();
      if (!storage_) return {};
      for (size_t i = 0; i < kBuffersWithout; ++i) {
        PITCREW_ASSIGN(auto memory, SnapshotMemory::anonymous(layout_.bytes()));
        PITCREW_TRY(buffers_.add(std::move(memory)));
      }
    }
    buffers_.prepare();
    return {};
  }

  Status reserve_files(bool one_is_kept) {
    const uint64_t shard = layout_.bytes();
    // Peers put in here as many copies of their slices as this replica puts into theirs: the one that counts and the
    // next.
    const uint64_t peers = services_.launcher == nullptr ? 0 : 2 * settings_.checkpoint.memory_copies;
    const uint64_t needed = shard * settings_.local_ranks * (kBuffersWithMemory + peers);
    const auto too_small = [&](const std::string& why) {
      return Error(Code::kResourceExhausted, "checkpoints in memory need " + std::to_string(needed) + " bytes at " +
                                                 memory_->path() + ": " + why +
                                                 "; set checkpoint.memory.size to at least that");
    };
    // Pages are taken later where that goes on in the background, so that room is judged before.
    const bool later = services_.copier->registers();
    if (const auto room = memory_->free_bytes(); room && later) {
      const uint64_t wanted = shard * settings_.local_ranks * (kBuffersWithMemory - (one_is_kept ? 1 : 0));
      if (*room < wanted) return too_small(std::to_string(*room) + " bytes are free");
    }
    for (size_t i = 0; i < kBuffersWithMemory - (later && one_is_kept ? 1 : 0); ++i) {
      const std::string path = memory_->reserve(settings_.local_rank, i);
      auto memory = later ? SnapshotMemory::file_without_pages(path, shard) : SnapshotMemory::file(path, shard);
      if (memory) {
        PITCREW_TRY(buffers_.add(std::move(*memory)));
      } else if (!(one_is_kept && i + 1 == kBuffersWithMemory)) {
        return too_small(memory.error().message);
      }
    }
    const auto left = memory_->free_bytes();
    const uint64_t own = later ? shard * settings_.local_ranks * kBuffersWithMemory : 0;  // not taken yet
    if (left && !one_is_kept && *left < own + peers * shard) {
      return too_small("after this rank's own buffers " + std::to_string(*left - std::min(*left, own)) +
                       " bytes are left, and peers' copies need " + std::to_string(peers * shard));
    }
    return {};
  }

  void drop(const std::vector<std::string>& checkpoints) {
    for (const std::string& name : checkpoints) {
      if (services_.launcher != nullptr) {
        const auto dropped = services_.launcher->call(launcher_socket::Drop{name});
        if (!dropped)
          services_.log.warning("an old memory checkpoint can't be dropped",
                                {{"checkpoint", name}, {"error", dropped.error().message}});
      }
      memory_->remove_checkpoint(name);
    }
  }

  void start_saving(Step step, Json state, SaveKinds kinds, uint64_t request) {
    if (!saver_) return;
    if (kinds.durable) begun_durable_ = step;
    if (kinds.memory) begun_memory_ = step;
    saver_->begin(step, std::move(state), kinds, request);
  }

  void publish() {
    if (!saver_) return;
    for (SaveOutcome& outcome : saver_->take_outcomes()) {
      if (services_.page != nullptr && group_.rank() == 0 && outcome.result == SaveOutcome::Result::kSaved) {
        if (outcome.place == Place::kDurable) {
          services_.page->set_durable(outcome.step);
        } else {
          services_.page->set_memory(outcome.step);
        }
      }
      outcomes_.push_back(std::move(outcome));
    }
  }

  CheckpointerSettings settings_;
  CheckpointerServices services_;
  const std::vector<StateTensor> tensors_;
  const RunDescription run_;
  Group group_;
  const SnapshotLayout layout_;
  SaveBuffers buffers_;
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<Claims> claims_;  // rank 0
  std::unique_ptr<MemoryFolder> memory_;
  std::string memory_off_;
  uint64_t claim_ = 0;
  uint64_t bytes_read_ = 0;
  std::optional<Instant> last_due_;
  std::optional<Step> begun_durable_, begun_memory_;
  std::vector<SaveOutcome> outcomes_;

  std::mutex beat_mutex_;
  std::condition_variable_any beat_changed_;
  std::jthread beater_;
  std::unique_ptr<Saver> saver_;
};

}  // namespace

Result<std::unique_ptr<Checkpointer>> Checkpointer::open(CheckpointerSettings settings, CheckpointerServices services,
                                                         std::vector<StateTensor> tensors, RunDescription run) {
  PITCREW_INVARIANT(services.clock != nullptr && services.copier != nullptr,
                    "a checkpointer needs a clock and a copier");
  auto made =
      std::make_unique<CheckpointerImpl>(std::move(settings), std::move(services), std::move(tensors), std::move(run));
  PITCREW_TRY(made->start());
  return std::unique_ptr<Checkpointer>(std::move(made));
}

}  // namespace pitcrew::trainer
