#pragma once

#include <vector>

#include "trainer/comm/exchange_comm.hpp"

namespace pitcrew::trainer {

// Some of a communicator's ranks as a communicator of their own: rank i is `members[i]` of the one below, which is a
// channel of all ranks that carries nothing but groups' traffic. Groups that have no rank in common may use one channel
// at the same time; a rank uses a channel for one group.
//
// lost_peer() and the messages of errors name the world's rank, not the group's: whoever died may not even be of the
// group. Owned and used by the thread whose collectives these are. The channel outlives it.
class GroupComm final : public ExchangeComm {
 public:
  // `members` holds the channel's own rank, each rank once.
  GroupComm(Comm& channel, std::vector<uint32_t> members);

  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override;
  void abort() override { channel_.abort(); }
  std::optional<uint32_t> lost_peer() const override { return channel_.lost_peer(); }

  const std::vector<uint32_t>& members() const { return members_; }

 private:
  Comm& channel_;
  const std::vector<uint32_t> members_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
};

}  // namespace pitcrew::trainer
