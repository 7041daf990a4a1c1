#pragma once

#include <functional>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "trainer/comm/comm.hpp"

namespace pitcrew::trainer {

// `size` processes gather in a loop and number `victim` is killed: all others name it. In each of them `connected`
// makes the rank's communicator and hands it to its second argument, which does not return.
inline void expect_a_killed_process_is_named(
    uint32_t size, uint32_t victim,
    const std::function<void(uint32_t rank, const std::function<void(Comm&)>& gather)>& connected) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  std::vector<pid_t> children;
  for (uint32_t rank = 0; rank < size; ++rank) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      connected(rank, [&](Comm& comm) {
        std::vector<std::byte> mine(100'000), all(mine.size() * size);
        for (uint64_t round = 0;; ++round) {
          if (round == 3 && write(ready[1], "r", 1) != 1) _exit(101);
          if (!comm.all_gather(mine, all)) break;
        }
        // Ends at once, as a rank without a launcher might, so that its own closing is in the others' way.
        _exit(comm.lost_peer() ? static_cast<int>(*comm.lost_peer()) + 1 : 102);
      });
      _exit(100);
    }
    children.push_back(child);
  }
  for (uint32_t i = 0; i < size; ++i) {
    char byte;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
  }
  kill(children[victim], SIGKILL);
  for (uint32_t rank = 0; rank < size; ++rank) {
    int status = 0;
    ASSERT_EQ(waitpid(children[rank], &status, 0), children[rank]);
    if (rank == victim) continue;
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(victim) + 1) << "rank " << rank;
  }
  close(ready[0]);
  close(ready[1]);
}

}  // namespace pitcrew::trainer
