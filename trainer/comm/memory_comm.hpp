#pragma once

#include <memory>
#include <vector>

#include "lib/base/time.hpp"
#include "trainer/comm/comm.hpp"

namespace pitcrew::trainer {

// Ranks that are threads of one process: for tests, and for the logic of many ranks on one device. Make the group, give
// each thread its rank's Comm; the group may be destroyed before them. A Comm that is destroyed, or killed, is a dead
// peer to the others. Messages are copied; what was sent and not yet received is kept without a limit.
class MemoryGroup {
 public:
  explicit MemoryGroup(uint32_t size, Duration timeout = minutes(10));
  ~MemoryGroup();

  // Each rank's once.
  std::unique_ptr<Comm> take(uint32_t rank);
  // The rank is dead from now on: its own calls fail, and everybody who waits for it gets an error that names it.
  void kill(uint32_t rank);

 private:
  friend class MemoryComm;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::trainer
