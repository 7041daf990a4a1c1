#include "trainer/comm/exchange_comm.hpp"

#include <cstring>
#include <vector>

namespace pitcrew::trainer {

Status ExchangeComm::barrier() {
  if (size_ == 1) return exchange({}, {});
  for (uint64_t distance = 1; distance < size_; distance *= 2) {
    const Send send{static_cast<uint32_t>((rank_ + distance) % size_), {}};
    const Receive receive{static_cast<uint32_t>((rank_ + size_ - distance) % size_), {}};
    PITCREW_TRY(exchange(std::span(&send, 1), std::span(&receive, 1)));
  }
  return {};
}

Status ExchangeComm::broadcast(std::span<std::byte> data, uint32_t root) {
  if (root >= size_)
    return Error(Code::kInvalidArgument, "broadcast from rank " + std::to_string(root) + ": no such rank");
  const uint64_t place = (rank_ + size_ - root) % size_;
  const auto rank_at = [&](uint64_t p) { return static_cast<uint32_t>((p + root) % size_); };
  // The lowest set bit of a place says whose child it is; the root stands below all bits.
  uint64_t bit = 1;
  while (bit < size_ && (place & bit) == 0) bit *= 2;
  if (place != 0) {
    const Receive receive{rank_at(place - bit), data};
    PITCREW_TRY(exchange({}, std::span(&receive, 1)));
  }
  std::vector<Send> sends;
  for (uint64_t child = bit / 2; child > 0; child /= 2) {
    if (place + child < size_) sends.push_back({rank_at(place + child), data});
  }
  return exchange(sends, {});
}

Status ExchangeComm::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  if (all.size() != mine.size() * size_) {
    return Error(Code::kInvalidArgument, "all_gather of " + std::to_string(mine.size()) + " bytes from " +
                                             std::to_string(size_) + " ranks into " + std::to_string(all.size()) +
                                             " bytes");
  }
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (uint32_t distance = 1; distance < size_; ++distance) {
    const uint32_t to = (rank_ + distance) % size_;
    const uint32_t from = (rank_ + size_ - distance) % size_;
    sends.push_back({to, mine});
    receives.push_back({from, all.subspan(from * mine.size(), mine.size())});
  }
  if (!mine.empty()) std::memmove(all.data() + rank_ * mine.size(), mine.data(), mine.size());
  return exchange(sends, receives);
}

}  // namespace pitcrew::trainer
