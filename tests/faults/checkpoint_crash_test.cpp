// The crash matrix: the end of everything at each operation of an epoch that claims, saves and removes, once as a
// killed process on a real disk and once as a power loss on a disk that keeps only what was synced.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/faults/checkpoint_world.hpp"

namespace pitcrew::faults {
namespace {

using trainer::testing::TemporaryFolder;

// Every operation of the second epoch, by number.
std::vector<std::string> trace(FaultyFiles& files, const std::string& path) {
  EXPECT_TRUE(train(epoch_on(files, path, 1), 1, 2, [](const SaveOutcome&) {}));
  files.set_judge({});
  EXPECT_TRUE(train(epoch_on(files, path, 2), 3, 4, [](const SaveOutcome&) {}));
  return files.points();
}

void expect_many_names(const std::vector<std::string>& points) {
  const std::set<std::string> names(points.begin(), points.end());
  std::string all;
  for (const auto& name : names) all += name + ", ";
  ::testing::Test::RecordProperty("points", all);
  std::printf("%zu operations with %zu names: %s\n", points.size(), names.size(), all.c_str());
  EXPECT_GE(names.size(), 15u);
}

TEST(CheckpointCrash, a_power_loss_at_any_operation_leaves_the_last_acknowledged_checkpoint) {
  PowerLossFiles example;
  FaultyFiles traced(example);
  const auto points = trace(traced, "checkpoints");
  expect_many_names(points);
  // What POSIX promises and no more; and what a disk may have kept besides, three times by chance, and all of it.
  const std::vector<std::pair<double, uint64_t>> disks = {{0.0, 1}, {0.5, 2}, {0.5, 3}, {0.8, 4}, {1.0, 5}};
  for (uint64_t at = 0; at <= points.size(); ++at) {
    for (const auto& [kept, seed] : disks) {
      SCOPED_TRACE("power lost at operation " + std::to_string(at) + " (" +
                   (at < points.size() ? points[at] : "after all") + "), unsynced changes kept with " +
                   std::to_string(kept) + ", seed " + std::to_string(seed));
      PowerLossFiles disk;
      FaultyFiles files(disk);
      uint64_t acknowledged = 0;
      const auto heard = [&](const SaveOutcome& outcome) {
        if (outcome.result == SaveOutcome::Result::kSaved) acknowledged = outcome.step.value;
      };
      ASSERT_TRUE(train(epoch_on(files, "checkpoints", 1), 1, 2, heard));
      files.set_judge([at](uint64_t number, const std::string&) {
        return number < at ? FaultyFiles::Act::kPass : FaultyFiles::Act::kFail;
      });
      train(epoch_on(files, "checkpoints", 2), 3, 4, heard);
      disk.lose_power(kept, seed * 1000 + at);

      const Recovered recovered = recover(epoch_on(disk, "checkpoints", 3, 1 + static_cast<uint32_t>(at % 3)));
      EXPECT_GE(recovered.step, acknowledged);
      EXPECT_LE(recovered.step, 4u);
      EXPECT_TRUE(recovered.damaged.empty()) << recovered.damaged.front();
      expect_no_leftovers(disk, "checkpoints");
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST(CheckpointCrash, a_process_killed_at_any_operation_leaves_the_last_acknowledged_checkpoint) {
  TemporaryFolder traced_folder;
  FaultyFiles traced(posix_file_system());
  const auto points = trace(traced, traced_folder.at("checkpoints"));
  expect_many_names(points);
  for (uint64_t at = 0; at < points.size(); ++at) {
    SCOPED_TRACE("killed at operation " + std::to_string(at) + " (" + points[at] + ")");
    TemporaryFolder folder;
    const std::string path = folder.at("checkpoints");
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      FaultyFiles files(posix_file_system());
      const auto heard = [&](const SaveOutcome& outcome) {
        const auto step = static_cast<unsigned char>(outcome.step.value);
        if (outcome.result == SaveOutcome::Result::kSaved && ::write(ends[1], &step, 1) != 1) ::_exit(2);
      };
      train(epoch_on(files, path, 1), 1, 2, heard);
      files.set_judge([at](uint64_t number, const std::string&) {
        if (number == at) ::kill(::getpid(), SIGKILL);
        return FaultyFiles::Act::kPass;
      });
      train(epoch_on(files, path, 2), 3, 4, heard);
      ::_exit(0);
    }
    ::close(ends[1]);
    uint64_t acknowledged = 0;
    unsigned char step = 0;
    while (::read(ends[0], &step, 1) == 1) acknowledged = step;
    ::close(ends[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_GE(acknowledged, 2u);
    // Ranks are threads, so now and then the last operations come in another order and number `at` is one fewer.
    ASSERT_TRUE(WIFSIGNALED(status) || status == 0) << status;

    const Recovered recovered = recover(epoch_on(posix_file_system(), path, 3, 1 + static_cast<uint32_t>(at % 3)));
    EXPECT_GE(recovered.step, acknowledged);
    EXPECT_TRUE(recovered.damaged.empty());
    expect_no_leftovers(posix_file_system(), path);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace pitcrew::faults
