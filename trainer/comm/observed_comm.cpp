#include "trainer/comm/observed_comm.hpp"

namespace pitcrew::trainer {

template <typename F>
Status ObservedComm::observed(F&& collective) {
  observer_.enter(++sequence_);
  Status done = collective();
  // Whoever failed stays "in the collective": it is a waiting rank, not the culprit.
  if (done) observer_.leave();
  return done;
}

Status ObservedComm::barrier() {
  return observed([&] { return below_.barrier(); });
}
Status ObservedComm::broadcast(std::span<std::byte> data, uint32_t root) {
  return observed([&] { return below_.broadcast(data, root); });
}
Status ObservedComm::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  return observed([&] { return below_.all_gather(mine, all); });
}
Status ObservedComm::exchange(std::span<const Send> sends, std::span<const Receive> receives) {
  return observed([&] { return below_.exchange(sends, receives); });
}

}  // namespace pitcrew::trainer
