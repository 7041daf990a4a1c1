#include "trainer/comm/nccl/peer_watch.hpp"

#include <chrono>
#include <thread>

namespace pitcrew::trainer {

PeerWatch::PeerWatch(std::unique_ptr<TcpComm> channel, Duration patience)
    : channel_(std::move(channel)), patience_(patience) {}

PeerWatch::Seen PeerWatch::look() {
  std::lock_guard lock(mutex_);
  Seen seen;
  seen.aborted = aborted_;
  if (asked_) {
    // A group of this rank gave up: the others have to.
    seen.gave_up = rank();
    return seen;
  }
  auto glance = channel_->glance();
  if (!glance) {
    seen.gone = glance.error();
    return seen;
  }
  seen.left = std::move(glance->left);
  if (!glance->waiting.empty()) seen.gave_up = glance->waiting.front();
  return seen;
}

std::optional<PeerWatch::Blame> PeerWatch::blame(Note mine, const std::vector<uint32_t>& members) {
  std::lock_guard lock(mutex_);
  if (!asked_) blame_ = ask(mine, members);
  asked_ = true;
  return blame_;
}

Result<std::vector<std::optional<PeerWatch::Note>>> PeerWatch::collect(Note mine) {
  const uint32_t size = channel_->size();
  std::vector<Comm::Send> sends;
  for (uint32_t peer = 0; peer < size; ++peer) {
    if (peer != rank()) sends.push_back({peer, std::as_bytes(std::span(&mine, 1))});
  }
  PITCREW_TRY(channel_->exchange(sends, {}));
  const auto until = std::chrono::steady_clock::now() + patience_;
  std::vector<uint32_t> answered;
  while (answered.size() + 1 < size && std::chrono::steady_clock::now() < until) {
    PITCREW_ASSIGN(const TcpComm::Glance glance, channel_->glance());
    answered = glance.waiting;
    if (answered.size() + 1 < size) std::this_thread::sleep_for(milliseconds(2));
  }
  std::vector<std::optional<Note>> notes(size);
  std::vector<Comm::Receive> receives;
  for (const uint32_t peer : answered) {
    receives.push_back({peer, std::as_writable_bytes(std::span(&notes[peer].emplace(), 1))});
  }
  PITCREW_TRY(channel_->exchange({}, receives));
  notes[rank()] = mine;
  return notes;
}

std::optional<PeerWatch::Blame> PeerWatch::ask(Note mine, const std::vector<uint32_t>& members) {
  const auto notes = collect(mine);
  if (!notes) {
    if (!channel_->lost_peer()) return std::nullopt;
    return Blame{*channel_->lost_peer(), "is gone"};
  }
  for (uint32_t rank = 0; rank < notes->size(); ++rank) {
    if ((*notes)[rank] && (*notes)[rank]->failed != 0) return Blame{rank, "failed"};
  }
  bool elsewhere = false;
  std::optional<uint32_t> last;
  for (const uint32_t member : members) {
    const std::optional<Note>& note = (*notes)[member];
    if (!note) return Blame{member, "did not come"};
    elsewhere = elsewhere || note->group != mine.group;
    if (note->group != mine.group || note->sequence >= mine.sequence) continue;
    if (!last || note->sequence < (*notes)[*last]->sequence) last = member;
  }
  if (last) {
    return Blame{*last, "is " + std::to_string(mine.sequence - (*notes)[*last]->sequence) + " collectives behind"};
  }
  for (uint32_t rank = 0; elsewhere && rank < notes->size(); ++rank) {
    if (!(*notes)[rank]) return Blame{rank, "did not come"};
  }
  return std::nullopt;
}

}  // namespace pitcrew::trainer
