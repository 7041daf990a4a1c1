#include "trainer/checkpoint/saver.hpp"

#include <algorithm>
#include <cstring>

#include "trainer/checkpoint/catalogue.hpp"

namespace pitcrew::trainer {
namespace {

constexpr size_t kWriteBytes = size_t{8} << 20;
// How soon ranks look at one another again when one has a save begun and another one written.
constexpr auto kLookAgain = milliseconds(20);
// What a rank has to do, as it tells the others.
constexpr uint64_t kBegun = 1, kWritten = 2;

}  // namespace

Saver::Saver(SaverInput input)
    : in_(std::move(input)),
      group_(in_.services->comm),
      log_(in_.services->log),
      tickets_(in_.tensors->size(), 0),
      adopted_(in_.in_memory) {
  uint64_t digests = 0;
  for (size_t p = 0; p < in_.layout->places().size(); ++p) {
    const auto& place = in_.layout->places()[p];
    first_digest_.push_back(digests);
    digests += chunks_of(place.bytes);
    if (place.bytes > 0) order_.push_back(p);
  }
  // As the optimizer will write them.
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
    const auto bucket = [&](size_t p) { return (*in_.tensors)[in_.layout->places()[p].slice.tensor].bucket; };
    return bucket(a) < bucket(b);
  });
  coordinator_ = std::jthread([this](std::stop_token stop) { coordinate(stop); });
  writer_ = std::jthread([this](std::stop_token stop) { write_shards(stop); });
}

Saver::~Saver() {
  coordinator_.request_stop();
  writer_.request_stop();
  bool busy = false;
  {
    const std::lock_guard lock(mutex_);
    busy = under_way_ > 0;
  }
  if (busy) abort();
  coordinator_.join();
  writer_.join();
  // Copies go into buffers that die next.
  if (newest_ticket_ != 0) in_.services->copier->wait(newest_ticket_);
}

void Saver::abort() {
  if (in_.services->comm != nullptr) in_.services->comm->abort();
  if (in_.services->launcher != nullptr) in_.services->launcher->abort();
  if (in_.storage != nullptr) in_.storage->abort();
  coordinator_.request_stop();
  writer_.request_stop();
}

void Saver::begin(Step step, Json state, SaveKinds kinds, uint64_t request) {
  Job job{.step = step,
          .checkpoint = to_string({in_.claim, step}),
          .state = std::move(state),
          .kinds = kinds,
          .request = request};
  job.buffer = in_.buffers->take();
  if (job.buffer != nullptr) {
    std::vector<Copier::Piece> pieces;
    for (const size_t p : order_) {
      const auto& place = in_.layout->places()[p];
      const StateTensor& tensor = (*in_.tensors)[place.slice.tensor];
      const uint64_t first = place.slice.first - tensor.first;
      // Floats in two halves lie at two bytes each.
      const uint64_t width = tensor.remainders == nullptr ? size_of(tensor.dtype) : sizeof(uint16_t);
      pieces.push_back({job.buffer->memory.data() + place.offset, tensor.data + first * width,
                        tensor.remainders == nullptr ? nullptr : tensor.remainders + first * width, place.bytes,
                        job.buffer->digests.as<uint64_t>() + first_digest_[p]});
    }
    const auto tickets = in_.services->copier->snapshot(pieces);
    for (size_t i = 0; i < tickets.size(); ++i) {
      tickets_[in_.layout->places()[order_[i]].slice.tensor] = tickets[i].free;
      last_ticket_ = std::max(last_ticket_, tickets[i].free);
      newest_ticket_ = std::max(newest_ticket_, tickets[i].copied);
    }
    job.copied = newest_ticket_;
  }
  const std::lock_guard lock(mutex_);
  if (dead_) {
    for (const Place place : {Place::kMemory, Place::kDurable}) {
      if (place == Place::kMemory ? kinds.memory : kinds.durable) {
        outcomes_.push_back({step, place, SaveOutcome::Result::kFailed, 0, "saving has ended: " + dead_->message});
      }
    }
    return;
  }
  ++under_way_;
  queue_.push_back(std::move(job));
  changed_.notify_all();
}

void Saver::hold_mutation(size_t tensor) {
  if (tickets_[tensor] == 0) return;
  in_.services->copier->hold_compute(tickets_[tensor]);
  tickets_[tensor] = 0;
}

void Saver::hold_mutation() {
  if (last_ticket_ == 0) return;
  in_.services->copier->hold_compute(last_ticket_);
  last_ticket_ = 0;
  std::fill(tickets_.begin(), tickets_.end(), 0);
}

Status Saver::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return under_way_ == 0 || dead_; });
  return dead_ ? Status(*dead_) : Status();
}

std::vector<SaveOutcome> Saver::take_outcomes() {
  const std::lock_guard lock(mutex_);
  return std::exchange(outcomes_, {});
}

uint64_t Saver::skipped() const {
  const std::lock_guard lock(mutex_);
  return skipped_;
}

std::optional<Step> Saver::last_saved(Place place) const {
  const std::lock_guard lock(mutex_);
  return place == Place::kDurable ? durable_step_ : memory_step_;
}

void Saver::finish_job(Job& job, Place place, SaveOutcome::Result result, uint64_t bytes, std::string message) {
  const std::lock_guard lock(mutex_);
  if (result == SaveOutcome::Result::kSkipped) ++skipped_;
  if (result == SaveOutcome::Result::kSaved) (place == Place::kDurable ? durable_step_ : memory_step_) = job.step;
  (place == Place::kDurable ? job.kinds.durable : job.kinds.memory) = false;
  outcomes_.push_back({job.step, place, result, bytes, std::move(message)});
}

void Saver::job_done() {
  const std::lock_guard lock(mutex_);
  --under_way_;
  changed_.notify_all();
}

void Saver::die(const Error& error) {
  const std::lock_guard lock(mutex_);
  dead_ = error;
  for (const auto* jobs : {&queue_, &writing_, &written_}) {
    for (const Job& job : *jobs) {
      const std::string message =
          "checkpoint step " + std::to_string(job.step.value) + " was given up: " + error.message;
      if (job.kinds.memory) outcomes_.push_back({job.step, Place::kMemory, SaveOutcome::Result::kFailed, 0, message});
      if (job.kinds.durable) outcomes_.push_back({job.step, Place::kDurable, SaveOutcome::Result::kFailed, 0, message});
    }
  }
  changed_.notify_all();
}

void Saver::coordinate(std::stop_token stop) {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, stop, [&] { return !queue_.empty() || !written_.empty(); });
    }
    if (stop.stop_requested()) return die(Error(Code::kCancelled, "the checkpointer was ended"));
    if (const Status done = round(); !done) {
      log_.error("checkpoints can't be saved any more in this epoch", {{"error", done.error().message}});
      return die(done.error());
    }
  }
}

// Ranks come to a round as soon as they have something to do, which need not be the same thing: what all of them have
// is done.
Status Saver::round() {
  uint64_t mine = 0;
  {
    const std::lock_guard lock(mutex_);
    mine = (queue_.empty() ? 0 : kBegun) | (written_.empty() ? 0 : kWritten);
  }
  PITCREW_ASSIGN(const auto all, group_.gather(mine));
  uint64_t common = kBegun | kWritten;
  for (const uint64_t word : all) common &= word;
  if (common == 0) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kLookAgain,
                      [&] { return ((queue_.empty() ? 0 : kBegun) | (written_.empty() ? 0 : kWritten)) != mine; });
    return {};
  }
  Job job;
  {
    const std::lock_guard lock(mutex_);
    auto& from = common & kWritten ? written_ : queue_;
    job = std::move(from.front());
    from.pop_front();
  }
  Status done = common & kWritten ? commit(job) : start(job);
  if (!done) {
    const std::lock_guard lock(mutex_);
    queue_.push_front(std::move(job));  // so that it is told of with the others
  }
  return done;
}

Status Saver::start(Job& job) {
  PITCREW_ASSIGN(const auto have, group_.gather(static_cast<uint64_t>(job.buffer != nullptr)));
  if (std::find(have.begin(), have.end(), 0u) != have.end()) {
    const std::string why = "step " + std::to_string(job.step.value) + " was not saved: " + in_.buffers->why_none();
    if (job.buffer != nullptr) {
      in_.services->copier->wait(job.copied);
      in_.buffers->end(job.buffer, SaveBuffers::kFilling);
    }
    if (job.kinds.memory) finish_job(job, Place::kMemory, SaveOutcome::Result::kSkipped, 0, why);
    if (job.kinds.durable) finish_job(job, Place::kDurable, SaveOutcome::Result::kSkipped, 0, why);
    job_done();
    return {};
  }
  in_.services->copier->wait(job.copied);
  const std::string header = in_.layout->header({in_.claim, job.step});
  std::memcpy(job.buffer->memory.data(), header.data(), header.size());
  const std::byte* shard = job.buffer->memory.data();
  job.report = in_.services->copier->makes_digests() ? in_.layout->report(shard, job.buffer->digests.as<uint64_t>())
                                                     : in_.layout->measure(shard);
  if (job.kinds.memory) PITCREW_TRY(save_memory(job));
  if (job.kinds.durable && superseded_) {
    finish_job(job, Place::kDurable, SaveOutcome::Result::kFailed, 0,
               "step " + std::to_string(job.step.value) + " was not saved: a newer epoch owns the checkpoint folder");
  }
  const bool durable = job.kinds.durable;
  SaveBuffers::Buffer* buffer = job.buffer;
  if (durable) {
    in_.buffers->use(buffer, SaveBuffers::kPersisting);
    const std::lock_guard lock(mutex_);
    writing_.push_back(std::move(job));
    changed_.notify_all();
  }
  in_.buffers->end(buffer, SaveBuffers::kFilling);
  if (!durable) job_done();
  return {};
}

// Everybody's report, and the manifest made from them; the inner error says who failed.
Result<std::optional<Error>> Saver::collect(const Job& job, const Status& mine, Manifest& manifest) {
  PITCREW_ASSIGN(auto failed, group_.agree(mine));
  if (failed) return failed;
  Json said = to_json(job.report);
  said["time"] = to_rfc3339(in_.services->clock->now(), 3);
  PITCREW_ASSIGN(const auto all, group_.gather(said));
  std::vector<ShardReport> reports;
  for (const Json& json : all) {
    PITCREW_ASSIGN(ShardReport report, parse_shard_report(json));
    reports.push_back(std::move(report));
  }
  manifest.name = {in_.claim, job.step};
  manifest.time = all[0].value("time", "");
  manifest.job_uid = in_.settings->job.uid;
  manifest.job_name = in_.settings->job.name;
  manifest.epoch = {in_.settings->job.term, in_.settings->epoch};
  manifest.world_size = group_.size();
  manifest.config_hash = in_.run->config_hash;
  manifest.dataset = in_.run->dataset;
  manifest.bits_depend_on = in_.run->bits_depend_on;
  manifest.state = job.state;
  add_shards(manifest, *in_.tensors, reports);
  return std::optional<Error>();
}

Status Saver::save_memory(Job& job) {
  const MemoryFolder& memory = *in_.memory;
  const std::string& checkpoint = job.checkpoint;
  Status mine = memory.make_checkpoint(checkpoint);
  if (mine) mine = job.buffer->memory.move_to(memory.own(checkpoint, in_.layout->file()));
  if (mine && has_launcher() && in_.settings->checkpoint.memory_copies > 0) {
    const auto pushed = in_.services->launcher->call(launcher_socket::Push{checkpoint, {in_.layout->file()}});
    if (!pushed) mine = pushed.error().with_context("copy it to a peer's memory");
  }
  Manifest manifest;
  PITCREW_ASSIGN(auto failed, collect(job, mine, manifest));
  const bool first = in_.settings->local_rank == 0;
  if (!failed) {
    mine = {};
    if (first) mine = memory.write_small("own/" + checkpoint + "/" + kManifestFile, encode(manifest));
    if (mine && first) {
      if (has_launcher()) {
        const auto told = in_.services->launcher->call(launcher_socket::Counted{checkpoint, job.step});
        if (!told) mine = told.error().with_context("tell the launcher that it counts");
      } else {
        mine = memory.mark_counted(checkpoint);
      }
    }
    PITCREW_ASSIGN(failed, group_.agree(mine));
  }
  if (failed) {
    // The buffer is used again; without its manifest what is left is no checkpoint.
    if (const Status back = job.buffer->memory.move_back(); !back)
      log_.warning("a buffer stays where it is", {{"error", back.error().message}});
    PITCREW_TRY(release_older(nullptr, checkpoint));
    finish_job(job, Place::kMemory, SaveOutcome::Result::kFailed, 0,
               "checkpoint step " + std::to_string(job.step.value) + " in memory: " + failed->message +
                   "; the one before it still counts");
    return {};
  }
  SaveBuffers::Buffer* older = in_.buffers->counted();
  const std::string older_name = older != nullptr ? older->checkpoint : "";
  job.buffer->checkpoint = checkpoint;
  in_.buffers->use(job.buffer, SaveBuffers::kCounted);
  finish_job(job, Place::kMemory, SaveOutcome::Result::kSaved, manifest.total_bytes(), "");
  if (older != nullptr) PITCREW_TRY(release_older(older, older_name));
  if (adopted_) {
    PITCREW_TRY(release_older(nullptr, to_string(*adopted_)));
    adopted_.reset();
    if (in_.buffers->size() < 3) {  // there was no room for the third as long as the old one was there
      auto third = SnapshotMemory::file(memory.reserve(in_.settings->local_rank, 2), in_.layout->bytes());
      if (third && in_.buffers->add(std::move(*third)).ok()) in_.buffers->prepare();
    }
  }
  return {};
}

// A memory checkpoint gives way: each rank takes its file out, then one rank of each replica has the rest removed
// everywhere.
Status Saver::release_older(SaveBuffers::Buffer* older, const std::string& checkpoint) {
  if (older != nullptr) {
    if (const Status back = older->memory.move_back(); !back)
      log_.warning("a buffer stays where it is", {{"error", back.error().message}});
    in_.buffers->end(older, SaveBuffers::kCounted);
  }
  PITCREW_ASSIGN([[maybe_unused]] const auto all, group_.gather(uint64_t{0}));
  if (in_.settings->local_rank != 0) return {};
  if (has_launcher()) {
    const auto dropped = in_.services->launcher->call(launcher_socket::Drop{checkpoint});
    if (!dropped)
      log_.warning("an old memory checkpoint can't be dropped",
                   {{"checkpoint", checkpoint}, {"error", dropped.error().message}});
  }
  in_.memory->remove_checkpoint(checkpoint);
  return {};
}

Status Saver::commit(Job& job) {
  const std::string what = "checkpoint step " + std::to_string(job.step.value);
  Manifest manifest;
  PITCREW_ASSIGN(auto failed, collect(job, job.written, manifest));
  if (!failed) {
    PITCREW_ASSIGN(failed, group_.agree(group_.rank() == 0 ? commit_manifest(manifest) : Status()));
    if (failed && failed->code == Code::kConflict) superseded_ = true;
  }
  in_.buffers->end(job.buffer, SaveBuffers::kPersisting);
  if (failed) {
    // No rank writes into the folder any more once all have come here.
    if (group_.rank() == 0) {
      if (const Status removed = in_.storage->remove_folder(job.checkpoint); !removed) {
        log_.warning("what is left of a failed save can't be removed",
                     {{"checkpoint", job.checkpoint}, {"error", removed.error().message}});
      }
    }
    const char* remedy = failed->code == Code::kResourceExhausted
                             ? "; make room in the checkpoint folder: saving is tried again at the next turn"
                             : "";
    finish_job(job, Place::kDurable, SaveOutcome::Result::kFailed, 0,
               what + ": " + failed->message + remedy + "; older checkpoints are as they were");
    job_done();
    return {};
  }
  const std::string path = join_path(in_.storage->path(), job.checkpoint);
  finish_job(job, Place::kDurable, SaveOutcome::Result::kSaved, manifest.total_bytes(), "");
  if (group_.rank() == 0) {
    if (has_launcher()) {
      const auto told =
          in_.services->launcher->call(launcher_socket::Saved{job.step, path, manifest.total_bytes(), job.request});
      if (!told)
        log_.warning("the launcher was not told of a save", {{"checkpoint", path}, {"error", told.error().message}});
    }
    if (const Status removed = remove_beyond(*in_.storage, in_.settings->checkpoint.keep, log_); !removed) {
      log_.warning("old checkpoints can't be removed", {{"error", removed.error().message}});
    }
  }
  job_done();
  return {};
}

Status Saver::commit_manifest(const Manifest& manifest) {
  if (in_.services->before_commit) PITCREW_TRY(in_.services->before_commit());
  PITCREW_TRY(in_.claims->check());
  return in_.storage->create(join_path(to_string(manifest.name), kManifestFile), encode(manifest));
}

void Saver::write_shards(std::stop_token stop) {
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !writing_.empty(); })) return;
      job = std::move(writing_.front());
      writing_.pop_front();
    }
    job.written = write_shard(job, stop);
    const std::lock_guard lock(mutex_);
    if (dead_) {
      outcomes_.push_back({job.step, Place::kDurable, SaveOutcome::Result::kFailed, 0,
                           "checkpoint step " + std::to_string(job.step.value) + " was given up: " + dead_->message});
    }
    written_.push_back(std::move(job));
    changed_.notify_all();
  }
}

Status Saver::write_shard(const Job& job, std::stop_token stop) {
  PITCREW_ASSIGN(const auto upload, in_.storage->write(join_path(job.checkpoint, in_.layout->file())));
  const std::span<const std::byte> shard(job.buffer->memory.data(), in_.layout->bytes());
  for (size_t at = 0; at < shard.size(); at += kWriteBytes) {
    if (stop.stop_requested()) return Error(Code::kCancelled, "the checkpointer was ended");
    PITCREW_TRY(upload->append(shard.subspan(at, std::min(kWriteBytes, shard.size() - at))));
  }
  return upload->finish();
}

}  // namespace pitcrew::trainer
