#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "trainer/comm/exchange_comm.hpp"
#include "trainer/comm/tcp_rendezvous.hpp"

namespace pitcrew::trainer {

// A communicator over one TCP connection to each peer: poll() and non-blocking sockets, all messages of an exchange
// moving at once, straight from and into the caller's buffers.
//
// When a peer is lost, its name goes to all others before this one falls silent, so that everybody blames the rank that
// really died and not the one that reported it. Connections stay open until the object is destroyed; a communicator
// that is destroyed in good health says goodbye, so that ending early is not taken for dying.
class TcpComm final : public ExchangeComm {
 public:
  // Meets the other ranks and returns one communicator for each of `channels` kinds of traffic (training; checkpoints),
  // each with connections of its own. Blocks; errors as tcp_rendezvous().
  static Result<std::vector<std::unique_ptr<TcpComm>>> connect(const TcpSettings& settings, uint32_t channels = 1);
  ~TcpComm() override;

  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override;
  void abort() override;
  std::optional<uint32_t> lost_peer() const override { return lost_; }

  // What the peers show between two exchanges.
  struct Glance {
    std::vector<uint32_t> left;     // ended in good health
    std::vector<uint32_t> waiting;  // have sent something that was not received yet
  };
  // Without waiting, from the thread that exchanges. kUnavailable: a peer is gone; the communicator is dead then.
  Result<Glance> glance();

 private:
  // What stands before each message.
  struct Frame {
    uint32_t kind;
    uint32_t word;
    uint64_t bytes;
  };
  struct Outgoing {
    Frame frame;
    std::span<const std::byte> data;
    size_t sent = 0;  // of frame and data together
  };
  struct Link {
    Socket socket;
    std::deque<Outgoing> out;
    std::deque<std::span<std::byte>> in;
    Frame frame{};
    size_t heard = 0;      // bytes of the frame, then of its data
    bool in_frame = true;  // false: the data of `frame` is next
    bool goodbye = false;
    bool closed = false;
  };

  TcpComm(const TcpSettings& settings, std::vector<Socket> sockets, Socket wake);
  Status enqueue(std::span<const Send> sends, std::span<const Receive> receives);
  Status move();
  Status read(uint32_t peer, bool& moved);
  Status write(uint32_t peer, bool& moved);
  Status closed(uint32_t peer, const std::string& how);
  Error lost(uint32_t peer, std::string how);
  Error late();
  void tell(uint32_t kind, uint32_t word);

  std::vector<Link> links_;
  const Duration timeout_;
  Socket wake_;  // an eventfd: abort() writes, poll() reads
  std::atomic<bool> aborted_{false};
  std::optional<Error> failure_;
  std::optional<uint32_t> lost_;
};

}  // namespace pitcrew::trainer
