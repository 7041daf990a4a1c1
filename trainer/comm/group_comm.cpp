#include "trainer/comm/group_comm.hpp"

#include <algorithm>

namespace pitcrew::trainer {
namespace {

uint32_t place_in(const std::vector<uint32_t>& members, uint32_t rank) {
  const auto at = std::find(members.begin(), members.end(), rank);
  PITCREW_INVARIANT(at != members.end(), "the rank is of its own group");
  return static_cast<uint32_t>(at - members.begin());
}

Error nobody(uint32_t peer, size_t size) {
  return Error(Code::kInvalidArgument, "a group of " + std::to_string(size) + " has no rank " + std::to_string(peer));
}

}  // namespace

GroupComm::GroupComm(Comm& channel, std::vector<uint32_t> members)
    : ExchangeComm(place_in(members, channel.rank()), static_cast<uint32_t>(members.size())),
      channel_(channel),
      members_(std::move(members)) {}

Status GroupComm::exchange(std::span<const Send> sends, std::span<const Receive> receives) {
  sends_.clear();
  receives_.clear();
  for (const Send& send : sends) {
    if (send.peer >= size()) return nobody(send.peer, size());
    sends_.push_back({members_[send.peer], send.data});
  }
  for (const Receive& receive : receives) {
    if (receive.peer >= size()) return nobody(receive.peer, size());
    receives_.push_back({members_[receive.peer], receive.data});
  }
  return channel_.exchange(sends_, receives_);
}

}  // namespace pitcrew::trainer
