#include "trainer/comm/observed_comm.hpp"

namespace pitcrew::trainer {

Status ObservedComm::observed(const char* kind, uint64_t bytes, const std::function<Status()>& collective) {
  const uint64_t sequence = ++*sequence_;
  if (observer_.enter) observer_.enter(sequence);
  if (recorder_ != nullptr) recorder_->begin(sequence, kind, bytes);
  Status done = collective();
  if (recorder_ != nullptr) recorder_->end(done.ok());
  // Whoever failed stays "in the collective": it is a waiting rank, not the culprit.
  if (done && observer_.leave) observer_.leave();
  return done;
}

Status ObservedComm::barrier() {
  return observed("barrier", 0, [&] { return below_.barrier(); });
}
Status ObservedComm::broadcast(std::span<std::byte> data, uint32_t root) {
  return observed("broadcast", data.size(), [&] { return below_.broadcast(data, root); });
}
Status ObservedComm::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  return observed("all_gather", mine.size() + all.size(), [&] { return below_.all_gather(mine, all); });
}
Status ObservedComm::exchange(std::span<const Send> sends, std::span<const Receive> receives) {
  uint64_t bytes = 0;
  for (const Send& send : sends) bytes += send.data.size();
  for (const Receive& receive : receives) bytes += receive.data.size();
  return observed("exchange", bytes, [&] { return below_.exchange(sends, receives); });
}

}  // namespace pitcrew::trainer
