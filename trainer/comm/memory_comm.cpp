#include "trainer/comm/memory_comm.hpp"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>

#include "trainer/comm/exchange_comm.hpp"

namespace pitcrew::trainer {

struct MemoryGroup::State {
  State(uint32_t n, Duration limit) : size(n), timeout(limit), mail(size_t{n} * n), dead(n), aborted(n) {}

  std::deque<std::vector<std::byte>>& box(uint32_t from, uint32_t to) { return mail[size_t{from} * size + to]; }

  const uint32_t size;
  const Duration timeout;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::deque<std::vector<std::byte>>> mail;  // guarded by mutex, as are the two below
  std::vector<bool> dead;
  std::vector<bool> aborted;
};

class MemoryComm final : public ExchangeComm {
 public:
  MemoryComm(std::shared_ptr<MemoryGroup::State> state, uint32_t rank)
      : ExchangeComm(rank, state->size), state_(std::move(state)) {}

  ~MemoryComm() override {
    std::lock_guard lock(state_->mutex);
    state_->dead[rank()] = true;
    state_->changed.notify_all();
  }

  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    if (failure_) return *failure_;
    Status done = try_exchange(sends, receives);
    if (!done) failure_ = done.error();
    return done;
  }

  void abort() override {
    std::lock_guard lock(state_->mutex);
    state_->aborted[rank()] = true;
    state_->changed.notify_all();
  }

  std::optional<uint32_t> lost_peer() const override { return lost_; }

 private:
  Status try_exchange(std::span<const Send> sends, std::span<const Receive> receives) {
    for (const Send& send : sends) {
      if (send.peer >= size())
        return Error(Code::kInvalidArgument, "no rank " + std::to_string(send.peer) + " to send to");
    }
    std::unique_lock lock(state_->mutex);
    if (auto error = own_end()) return *error;
    for (const Send& send : sends) state_->box(rank(), send.peer).emplace_back(send.data.begin(), send.data.end());
    state_->changed.notify_all();
    for (const Receive& receive : receives) {
      if (receive.peer >= size())
        return Error(Code::kInvalidArgument, "no rank " + std::to_string(receive.peer) + " to receive from");
      auto& box = state_->box(receive.peer, rank());
      const bool came = state_->changed.wait_for(
          lock, state_->timeout, [&] { return !box.empty() || own_end() || state_->dead[receive.peer]; });
      if (auto error = own_end()) return *error;
      if (box.empty()) {
        lost_ = receive.peer;
        if (!came)
          return Error(Code::kDeadlineExceeded,
                       "rank " + std::to_string(receive.peer) + " did not come within " + to_string(state_->timeout));
        return Error(Code::kUnavailable, "rank " + std::to_string(receive.peer) + " is gone");
      }
      const std::vector<std::byte> message = std::move(box.front());
      box.pop_front();
      if (message.size() != receive.data.size()) {
        return Error(Code::kInternal, "rank " + std::to_string(receive.peer) + " sent " +
                                          std::to_string(message.size()) + " bytes where " +
                                          std::to_string(receive.data.size()) + " were expected: the ranks disagree");
      }
      if (!message.empty()) std::memcpy(receive.data.data(), message.data(), message.size());
    }
    // A peer may be dead although nothing is wanted from it: its death is everybody's.
    for (const Send& send : sends) {
      if (state_->dead[send.peer] && !state_->box(rank(), send.peer).empty() && receives.empty()) {
        lost_ = send.peer;
        return Error(Code::kUnavailable, "rank " + std::to_string(send.peer) + " is gone");
      }
    }
    return {};
  }

  std::optional<Error> own_end() const {
    if (state_->aborted[rank()]) return Error(Code::kCancelled, "the communicator was aborted");
    if (state_->dead[rank()]) return Error(Code::kUnavailable, "rank " + std::to_string(rank()) + " was killed");
    return std::nullopt;
  }

  std::shared_ptr<MemoryGroup::State> state_;
  std::optional<Error> failure_;
  std::optional<uint32_t> lost_;
};

MemoryGroup::MemoryGroup(uint32_t size, Duration timeout) : state_(std::make_shared<State>(size, timeout)) {}
MemoryGroup::~MemoryGroup() = default;

std::unique_ptr<Comm> MemoryGroup::take(uint32_t rank) { return std::make_unique<MemoryComm>(state_, rank); }

void MemoryGroup::kill(uint32_t rank) {
  std::lock_guard lock(state_->mutex);
  state_->dead[rank] = true;
  state_->changed.notify_all();
}

}  // namespace pitcrew::trainer
