#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "trainer/comm/tcp_comm.hpp"

namespace pitcrew::trainer {

// NCCL does not say which rank is gone, and over NVLink and shared memory does not even notice. This does: a TCP
// channel of all the world's ranks that is silent while all is well. A process that dies closes it; a rank that gives
// up sends a note on it, to which all others answer with theirs, so that who does not answer, or is behind, is to
// blame.
//
// One for a process, shared by its NCCL communicators, which may be used from different threads. Outlives them.
class PeerWatch {
 public:
  // `patience`: how long a rank that gave up waits for the others' notes.
  explicit PeerWatch(std::unique_ptr<TcpComm> channel, Duration patience = seconds(5));

  struct Seen {
    std::optional<Error> gone;        // a peer is; kUnavailable, named
    std::optional<uint32_t> gave_up;  // the first rank that did
    std::vector<uint32_t> left;       // ended in good health
    bool aborted = false;             // by this rank
  };
  // Without waiting.
  Seen look();

  // How far this rank has come in the group it waits in.
  struct Note {
    uint64_t group = 0;     // the same number on all of its ranks, another for each group
    uint64_t sequence = 0;  // of its collectives
    uint64_t failed = 0;    // 1: its own GPU or NCCL failed, and not for a peer's sake
  };
  struct Blame {
    uint32_t rank;    // of the world
    std::string how;  // "is gone", "did not come", "failed", "is 3 collectives behind"
  };
  // Tells the others that this rank gives up, and waits for their notes; `members` are the ranks of the group it waits
  // in. Suspects, in this order: who is gone; whose own GPU failed; a member that does not answer, or is behind; and
  // where a member waits in another group, anybody who does not answer. Empty: nobody is known to be the cause. The
  // first call in a process decides; later ones return the same.
  std::optional<Blame> blame(Note mine, const std::vector<uint32_t>& members);

  // From now on look() says so: what one of a rank's communicators was told is meant for all. From any thread.
  void abort() { aborted_ = true; }

  uint32_t rank() const { return channel_->rank(); }

 private:
  std::optional<Blame> ask(Note mine, const std::vector<uint32_t>& members);
  // Notes by rank; without those who don't answer in time. kUnavailable: a peer is gone.
  Result<std::vector<std::optional<Note>>> collect(Note mine);

  std::mutex mutex_;
  const std::unique_ptr<TcpComm> channel_;
  const Duration patience_;
  bool asked_ = false;
  std::atomic<bool> aborted_{false};
  std::optional<Blame> blame_;
};

}  // namespace pitcrew::trainer
