#include "trainer/comm/nccl/nccl_comm.hpp"

#include <algorithm>
#include <mutex>
#include <thread>

#include "lib/base/digest.hpp"
#include "trainer/comm/nccl/bounded.hpp"

namespace pitcrew::trainer {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Between two looks at the peers while something is waited for.
constexpr Duration kLookEvery = milliseconds(20);

// Keeps what must never be given back until the process ends.
void abandon(std::unique_ptr<Stream> stream, Buffer buffer) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::pair<std::unique_ptr<Stream>, Buffer>>;
  const std::lock_guard lock(mutex);
  kept->emplace_back(std::move(stream), std::move(buffer));
}

// What is waited for usually comes within microseconds; after a while a millisecond more does not matter.
void pause(uint32_t round) {
  if (round < 200) return std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::microseconds(round < 2000 ? 50 : 1000));
}

}  // namespace

Result<std::unique_ptr<NcclComm>> NcclComm::create(std::shared_ptr<const nccl::Api> api, Comm& meeting, Device& device,
                                                   PeerWatch* watch, NcclSettings settings) {
  PITCREW_INVARIANT(settings.members.empty() || settings.members.size() == meeting.size(), "a world's rank for each");
  std::unique_ptr<NcclComm> comm(new NcclComm(std::move(api), meeting, device, watch, std::move(settings)));
  PITCREW_ASSIGN(comm->scratch_, device.allocate("NCCL's barrier", meeting.size() + size_t{2}));
  if (Status met = comm->meet(meeting); !met) {
    return met.error().with_context("NCCL communicator of the " + comm->settings_.group + ", rank " +
                                    std::to_string(comm->rank_) + " of " + std::to_string(comm->size_));
  }
  return comm;
}

NcclComm::NcclComm(std::shared_ptr<const nccl::Api> api, Comm& meeting, Device& device, PeerWatch* watch,
                   NcclSettings settings)
    : api_(std::move(api)),
      settings_(std::move(settings)),
      rank_(meeting.rank()),
      size_(meeting.size()),
      watch_(watch),
      stream_(device.create_stream("nccl " + settings_.group)) {}

NcclComm::~NcclComm() {
  watcher_.request_stop();
  if (watcher_.joinable()) watcher_.join();
  if (comm_ != nullptr) end(!failure_ && !aborted_);
}

void NcclComm::abort() {
  aborted_ = true;
  if (watch_ != nullptr) watch_->abort();
}

std::optional<uint32_t> NcclComm::lost_peer() const {
  const int64_t lost = lost_;
  return lost < 0 ? std::nullopt : std::optional(static_cast<uint32_t>(lost));
}

Status NcclComm::meet(Comm& meeting) {
  struct Invitation {
    int result = nccl::kSuccess;
    nccl::UniqueId id{};
  } invitation;
  stream_->native();  // the device is this thread's
  if (rank_ == 0) invitation.result = api_->GetUniqueId(&invitation.id);
  PITCREW_TRY(meeting.broadcast(std::as_writable_bytes(std::span(&invitation, 1)), 0));
  if (invitation.result != nccl::kSuccess) return refused("make a unique id on rank 0", invitation.result);
  nccl::Config config;
  config.blocking = 0;
  const std::string what = "meet the other ranks";
  const int begun =
      api_->CommInitRankConfig(&comm_, static_cast<int>(size_), invitation.id, static_cast<int>(rank_), &config);
  if (begun != nccl::kSuccess && begun != nccl::kInProgress) {
    comm_ = nullptr;  // what a call that failed at once has left there is not to be touched
    return refused(what, begun);
  }
  return wait(what, settings_.connect_timeout, [](int state) { return state == nccl::kSuccess; });
}

// NCCL has taken it when this returns; `stream` has its work.
template <typename Enqueue>
Status NcclComm::begin(Stream& stream, const std::string& name, Enqueue&& enqueue) {
  if (failure_) return *failure_;
  if (aborted_) return give_up(Code::kCancelled, "the communicator was aborted", false);
  ++sequence_;
  left_since_.reset();
  const int begun = enqueue(stream.native());
  if (begun != nccl::kSuccess && begun != nccl::kInProgress) return refused(name, begun);
  // Only when all is enqueued does an event after it mean that it is done.
  return wait(name, settings_.collective_timeout, [](int state) { return state == nccl::kSuccess; });
}

template <typename Enqueue>
Status NcclComm::collective(const char* what, Enqueue&& enqueue) {
  const std::lock_guard lock(mutex_);
  const std::string name = named(what);
  waits_in_ = sequence_ + 1;
  if (after_) stream_->wait(std::exchange(after_, nullptr));
  PITCREW_TRY(begin(*stream_, name, std::forward<Enqueue>(enqueue)));
  const auto passed = stream_->record();
  return wait(name, settings_.collective_timeout, [&](int) { return passed->reached(); });
}

template <typename Enqueue>
Status NcclComm::enqueued(Stream& stream, const char* what, uint64_t bytes, Enqueue&& enqueue) {
  const std::lock_guard lock(mutex_);
  const auto ready = stream.record();
  PITCREW_TRY(begin(stream, named(what), std::forward<Enqueue>(enqueue)));
  under_way_.push_back({what, bytes, sequence_, ready, stream.record()});
  if (!watcher_.joinable()) watcher_ = std::jthread([this](const std::stop_token& stop) { watch_streams(stop); });
  changed_.notify_one();
  return {};
}

// Nobody waits for this thread but who looks for a failure: it may be late.
void NcclComm::watch_streams(const std::stop_token& stop) {
  constexpr auto kPause = std::chrono::microseconds(200);
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !under_way_.empty(); })) {
    if (look_at_first()) continue;
    lock.unlock();
    std::this_thread::sleep_for(kPause);
    lock.lock();
  }
}

// Whether anything has come of the first of those under way.
bool NcclComm::look_at_first() {
  if (failure_) {
    first_ended(false);
    return true;
  }
  UnderWay& first = under_way_.front();
  const auto now = SteadyClock::now();
  if (!first.begun && first.ready->reached()) {
    first.begun = now;
    look_at_ = now + kLookEvery;
    left_since_.reset();
    waits_in_ = first.sequence;
    if (settings_.observer.enter) settings_.observer.enter(first.sequence);
    if (settings_.recorder != nullptr) settings_.recorder->begin(first.sequence, first.kind, first.bytes);
  }
  if (first.begun && first.passed->reached()) {
    first_ended(true);
    return true;
  }
  const std::string name = named(first.kind);
  int state = nccl::kSuccess;
  if (aborted_) {
    give_up(Code::kCancelled, "the communicator was aborted", false);
  } else if (const int told = api_->CommGetAsyncError(comm_, &state); told != nccl::kSuccess) {
    refused(name, told);
  } else if (state != nccl::kSuccess && state != nccl::kInProgress) {
    refused(name, state);
  } else if (first.begun && now - *first.begun >= settings_.collective_timeout) {
    limit_ = settings_.collective_timeout;
    give_up(Code::kDeadlineExceeded, name + ": not done within " + to_string(limit_), false);
  } else if (now >= look_at_) {
    look_at_ = now + kLookEvery;
    trouble(name);
  }
  return failure_.has_value();
}

void NcclComm::first_ended(bool done) {
  const UnderWay first = std::move(under_way_.front());
  under_way_.pop_front();
  if (!first.begun) return;
  if (settings_.recorder != nullptr) settings_.recorder->end(done);
  if (done && settings_.observer.leave) settings_.observer.leave();
}

Status NcclComm::status() const {
  const std::lock_guard lock(mutex_);
  return failure_ ? Status(*failure_) : Status();
}

Status NcclComm::wait(const std::string& what, Duration timeout, const std::function<bool(int state)>& done) {
  limit_ = timeout;
  const auto begun = SteadyClock::now();
  auto look_at = begun + kLookEvery;
  for (uint32_t round = 0;; ++round) {
    if (aborted_ || (sequence_ == 0 && settings_.cancelled && settings_.cancelled()))
      return give_up(Code::kCancelled, "the communicator was aborted", false);
    int state = nccl::kSuccess;
    if (const int told = api_->CommGetAsyncError(comm_, &state); told != nccl::kSuccess) return refused(what, told);
    if (state != nccl::kSuccess && state != nccl::kInProgress) return refused(what, state);
    if (done(state)) return {};
    const auto now = SteadyClock::now();
    if (now - begun >= timeout)
      return give_up(Code::kDeadlineExceeded, what + ": not done within " + to_string(timeout), false);
    if (now >= look_at) {
      if (auto error = trouble(what)) return *error;
      look_at = now + kLookEvery;
    }
    pause(round);
  }
}

// Whether a peer shows that what is waited for won't come.
std::optional<Error> NcclComm::trouble(const std::string& what) {
  if (watch_ == nullptr) return std::nullopt;
  const PeerWatch::Seen seen = watch_->look();
  if (seen.aborted) return give_up(Code::kCancelled, "another communicator of the rank was aborted", false);
  if (seen.gone) return give_up(Code::kUnavailable, what + ": " + seen.gone->message, false);
  if (seen.gave_up)
    return give_up(Code::kUnavailable, what + ": rank " + std::to_string(*seen.gave_up) + " gave up", false);
  // A peer may end as soon as its part is done, a moment before this rank's is.
  for (uint32_t member = 0; member < size_; ++member) {
    const uint32_t world = world_rank(member);
    if (std::find(seen.left.begin(), seen.left.end(), world) == seen.left.end()) continue;
    const auto now = SteadyClock::now();
    if (!left_since_) left_since_ = now;
    if (now - *left_since_ < settings_.end_timeout) return std::nullopt;
    lost_ = world;
    return give_up(Code::kUnavailable, what + ": rank " + std::to_string(world) + " is gone (it left)", false);
  }
  return std::nullopt;
}

// NCCL said no.
Error NcclComm::refused(const std::string& what, int result) {
  std::string why = what + ": NCCL says \"" + api_->GetErrorString(result) + "\"";
  if (const char* last = api_->GetLastError(comm_); last != nullptr && *last != '\0')
    why += std::string(" (") + last + ")";
  if (result == nccl::kRemoteError) return give_up(Code::kUnavailable, why, false);
  if (result == nccl::kInvalidUsage || result == nccl::kInvalidArgument) {
    why += "; each rank needs a GPU of its own, and all ranks the same calls: NCCL_DEBUG=WARN tells more";
    return give_up(Code::kUnsupported, why, true);
  }
  return give_up(Code::kUnavailable, why + "; NCCL_DEBUG=WARN tells more", true);
}

// The communicator is dead from here on. Whoever is to blame goes first in the message.
Error NcclComm::give_up(Code code, std::string why, bool own_fault) {
  if (failure_) return *failure_;
  if (code != Code::kCancelled && watch_ != nullptr && !lost_peer()) {
    std::vector<uint32_t> members;
    for (uint32_t member = 0; member < size_; ++member) members.push_back(world_rank(member));
    const PeerWatch::Note note{xxh3(settings_.group), waits_in_, own_fault ? 1u : 0u};
    const auto blame = watch_->blame(note, members);
    if (blame && blame->rank != watch_->rank()) {
      lost_ = blame->rank;
      const std::string name = "rank " + std::to_string(blame->rank);
      const bool late = code == Code::kDeadlineExceeded && blame->how == "did not come";
      if (blame->how == "is gone") code = Code::kUnavailable;
      why = name + " " + blame->how + (late ? " within " + to_string(limit_) : "") + " (" + why + ")";
    }
  }
  failure_ = Error(code, std::move(why));
  if (comm_ != nullptr) end(false);
  return *failure_;
}

void NcclComm::end(bool in_good_health) {
  const nccl::CommHandle comm = std::exchange(comm_, nullptr);
  if (in_good_health) {
    const bool finished =
        nccl::returns_within(settings_.end_timeout, [api = api_, comm, limit = settings_.end_timeout] {
          const auto until = SteadyClock::now() + limit;
          int state = api->CommFinalize(comm);
          for (uint32_t round = 0; state == nccl::kInProgress && SteadyClock::now() < until; ++round) {
            pause(round);
            if (api->CommGetAsyncError(comm, &state) != nccl::kSuccess) state = nccl::kInternalError;
          }
          if (state == nccl::kSuccess) {
            api->CommDestroy(comm);
          } else {
            api->CommAbort(comm);
          }
        });
    if (finished) return;
  } else if (nccl::returns_within(settings_.end_timeout, [api = api_, comm] { api->CommAbort(comm); })) {
    return;
  }
  // NCCL still holds the stream: giving it back would wait for ever.
  abandon(std::move(stream_), std::move(scratch_));
}

Status NcclComm::barrier() {
  std::byte* data = scratch_.data();
  return collective("barrier", [&](nccl::StreamHandle stream) {
    return api_->AllGather(data + rank_, data, 1, nccl::kUint8, comm_, stream);
  });
}

Status NcclComm::broadcast(std::span<std::byte> data, uint32_t root) {
  if (root >= size_)
    return Error(Code::kInvalidArgument, "broadcast from rank " + std::to_string(root) + ": no such rank");
  return collective("broadcast", [&](nccl::StreamHandle stream) {
    return api_->Broadcast(data.data(), data.data(), data.size(), nccl::kUint8, static_cast<int>(root), comm_, stream);
  });
}

Status NcclComm::check_gather(size_t mine, size_t all) const {
  if (all == mine * size_) return {};
  return Error(Code::kInvalidArgument, "all_gather of " + std::to_string(mine) + " bytes from " +
                                           std::to_string(size_) + " ranks into " + std::to_string(all) + " bytes");
}

Status NcclComm::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  PITCREW_TRY(check_gather(mine.size(), all.size()));
  return collective("all_gather", [&](nccl::StreamHandle stream) {
    return api_->AllGather(mine.data(), all.data(), mine.size(), nccl::kUint8, comm_, stream);
  });
}

Status NcclComm::all_gather(Stream& stream, std::span<const std::byte> mine, std::span<std::byte> all) {
  PITCREW_TRY(check_gather(mine.size(), all.size()));
  return enqueued(stream, "all_gather", mine.size() + all.size(), [&](nccl::StreamHandle handle) {
    return api_->AllGather(mine.data(), all.data(), mine.size(), nccl::kUint8, comm_, handle);
  });
}

Status NcclComm::check_peers(std::span<const Send> sends, std::span<const Receive> receives) const {
  for (const Send& send : sends) {
    if (send.peer >= size_)
      return Error(Code::kInvalidArgument, "no rank " + std::to_string(send.peer) + " to send to");
  }
  for (const Receive& receive : receives) {
    if (receive.peer >= size_)
      return Error(Code::kInvalidArgument, "no rank " + std::to_string(receive.peer) + " to receive from");
  }
  return {};
}

// All messages as one operation of NCCL's.
int NcclComm::post(nccl::StreamHandle stream, std::span<const Send> sends, std::span<const Receive> receives) {
  // A message of no bytes is one byte of no meaning.
  std::byte* const empty = scratch_.data() + size_;
  int first = api_->GroupStart();
  if (first != nccl::kSuccess) return first;
  const auto note = [&](int result) {
    if (first == nccl::kSuccess && result != nccl::kInProgress) first = result;
  };
  for (const Send& send : sends) {
    const std::byte* data = send.data.empty() ? empty : send.data.data();
    note(api_->Send(data, std::max<size_t>(1, send.data.size()), nccl::kUint8, static_cast<int>(send.peer), comm_,
                    stream));
  }
  for (const Receive& receive : receives) {
    std::byte* data = receive.data.empty() ? empty + 1 : receive.data.data();
    note(api_->Recv(data, std::max<size_t>(1, receive.data.size()), nccl::kUint8, static_cast<int>(receive.peer), comm_,
                    stream));
  }
  const int ended = api_->GroupEnd();
  return first != nccl::kSuccess ? first : ended;
}

Status NcclComm::exchange(std::span<const Send> sends, std::span<const Receive> receives) {
  PITCREW_TRY(check_peers(sends, receives));
  return collective("exchange", [&](nccl::StreamHandle stream) { return post(stream, sends, receives); });
}

Status NcclComm::exchange(Stream& stream, std::span<const Send> sends, std::span<const Receive> receives) {
  PITCREW_TRY(check_peers(sends, receives));
  uint64_t bytes = 0;
  for (const Send& send : sends) bytes += send.data.size();
  for (const Receive& receive : receives) bytes += receive.data.size();
  return enqueued(stream, "exchange", bytes, [&](nccl::StreamHandle handle) { return post(handle, sends, receives); });
}

Status NcclComm::all_reduce_sum(std::span<float> values) {
  return collective("all_reduce", [&](nccl::StreamHandle stream) {
    return api_->AllReduce(values.data(), values.data(), values.size(), nccl::kFloat32, nccl::kSum, comm_, stream);
  });
}

Status NcclComm::reduce_scatter_sum(std::span<const float> values, std::span<float> mine) {
  if (values.size() != mine.size() * size_) {
    return Error(Code::kInvalidArgument, "reduce_scatter of " + std::to_string(values.size()) + " values from " +
                                             std::to_string(size_) + " ranks into " + std::to_string(mine.size()));
  }
  return collective("reduce_scatter", [&](nccl::StreamHandle stream) {
    return api_->ReduceScatter(values.data(), mine.data(), mine.size(), nccl::kFloat32, nccl::kSum, comm_, stream);
  });
}

}  // namespace pitcrew::trainer
