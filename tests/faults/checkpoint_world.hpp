#pragma once

// Epochs of two ranks that save to a file system which goes wrong, for the crash matrix.

#include <set>

#include <gmock/gmock.h>

#include "tests/faults/faulty_files.hpp"
#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::faults {

using trainer::list_checkpoints;
using trainer::SaveOutcome;
using trainer::testing::Epoch;
using trainer::testing::RankView;
using trainer::testing::run_epoch;

inline constexpr uint32_t kRanks = 2;

inline Epoch epoch_on(FileSystem& files, const std::string& path, uint64_t number, uint32_t ranks = kRanks) {
  Epoch epoch{.ranks = ranks, .number = number, .files = &files, .embedding = 300'000};
  epoch.checkpoint.path = path;
  epoch.checkpoint.keep = 2;
  return epoch;
}

// Restores and saves the steps given; calls `acknowledged` on rank 0 for each that is said to be saved. Goes on after
// errors, as training does. False where the epoch could not begin.
inline bool train(const Epoch& epoch, uint64_t from, uint64_t to,
                  const std::function<void(const SaveOutcome&)>& heard) {
  std::atomic<bool> restored_all{true};
  const Status opened = run_epoch(epoch, [&](RankView rank) {
    if (!rank.checkpointer.restore({})) {
      restored_all = false;
      return;
    }
    std::vector<SaveOutcome> outcomes;
    for (uint64_t step = from; step <= to; ++step) {
      outcomes.clear();
      save_steps(rank, step, step, {.durable = true}, &outcomes);
      if (rank.rank == 0) heard(outcomes.back());
    }
  });
  return opened.ok() && restored_all;
}

struct Recovered {
  uint64_t step = 0;
  std::vector<std::string> damaged;
};

// What an epoch after the fault finds, with any number of ranks: a state whose bytes are those of its step.
inline Recovered recover(const Epoch& epoch) {
  Recovered recovered;
  EXPECT_TRUE(run_epoch(epoch, [&](RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_TRUE(restored) << restored.error().message;
    ASSERT_TRUE(restored->has_value()) << "nothing was found";
    EXPECT_TRUE(rank.state.holds((*restored)->step.value)) << "rank " << rank.rank << ", step " << (*restored)->step;
    if (rank.rank == 0) recovered = {(*restored)->step.value, (*restored)->damaged};
  }));
  return recovered;
}

// No folder of an earlier claim is left without a manifest.
inline void expect_no_leftovers(FileSystem& files, const std::string& path) {
  const auto listed = list_checkpoints(files, path);
  ASSERT_TRUE(listed);
  for (const auto& checkpoint : *listed)
    EXPECT_TRUE(checkpoint.intact) << checkpoint.name << ": " << checkpoint.problem;
}

}  // namespace pitcrew::faults
