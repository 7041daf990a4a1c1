#include "trainer/checkpoint/copier.hpp"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

namespace pitcrew::trainer {

std::vector<Copier::Tickets> Copier::snapshot(std::span<const Piece> pieces) {
  begin();
  std::vector<Tickets> tickets;
  for (const Piece& piece : pieces) {
    PITCREW_INVARIANT(piece.remainders == nullptr, "floats in two halves are joined by a device's copier");
    const Ticket ticket = copy_out(piece.host, piece.device, piece.bytes);
    tickets.push_back({ticket, ticket});
  }
  return tickets;
}

void Copier::begin_copy_in(std::byte* device, std::byte* remainders, const std::byte* host, size_t bytes) {
  PITCREW_INVARIANT(remainders == nullptr, "floats are cut into halves by a device's copier");
  copy_in(device, host, bytes);
}

Result<Buffer> Copier::allocate_host(size_t bytes) {
  return Buffer(new std::byte[bytes], bytes, [](std::byte* data, size_t) { delete[] data; });
}

Result<Buffer> Copier::register_host(std::byte*, size_t) { return Buffer(); }

struct ThreadCopier::State {
  struct Copy {
    std::byte* to;
    const std::byte* from;
    size_t bytes;
  };
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<Copy> queue;
  Ticket asked = 0;
  Ticket done = 0;
  std::jthread worker;

  void run(std::stop_token stop) {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, stop, [&] { return !queue.empty(); });
      if (queue.empty()) return;
      const Copy copy = queue.front();
      queue.pop_front();
      lock.unlock();
      std::memcpy(copy.to, copy.from, copy.bytes);
      lock.lock();
      ++done;
      changed.notify_all();
    }
  }
};

ThreadCopier::ThreadCopier() : state_(std::make_unique<State>()) {
  state_->worker = std::jthread([state = state_.get()](std::stop_token stop) { state->run(stop); });
}

ThreadCopier::~ThreadCopier() {
  state_->worker.request_stop();
  state_->worker.join();
}

Copier::Ticket ThreadCopier::copy_out(std::byte* host, const std::byte* device, size_t bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->queue.push_back({host, device, bytes});
  state_->changed.notify_all();
  return ++state_->asked;
}

void ThreadCopier::wait(Ticket ticket) {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->done >= ticket; });
}

void ThreadCopier::copy_in(std::byte* device, const std::byte* host, size_t bytes) { std::memcpy(device, host, bytes); }

}  // namespace pitcrew::trainer
