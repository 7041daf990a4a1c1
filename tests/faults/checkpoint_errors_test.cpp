// Errors instead of ends: a full disk, short writes, a failing sync, flipped bits. Training goes on, and nothing is
// lost that was acknowledged.
#include "lib/base/log.hpp"
#include "tests/faults/checkpoint_world.hpp"

namespace pitcrew::faults {
namespace {

constexpr char kPath[] = "checkpoints";

struct Fault {
  const char* name;
  FaultyFiles::Act act;
  Error error;
};

class CheckpointErrors : public ::testing::TestWithParam<Fault> {};

// The fault strikes once, at each operation of one save in turn; the save after it has to work.
TEST_P(CheckpointErrors, one_failing_operation_costs_at_most_one_save) {
  uint64_t operations = 1;
  for (uint64_t at = 0; at < operations; ++at) {
    PowerLossFiles disk;
    FaultyFiles files(disk);
    std::string point;
    std::vector<SaveOutcome> outcomes;
    const auto heard = [&](const SaveOutcome& outcome) {
      outcomes.push_back(outcome);
      if (outcome.step == Step(2)) {
        files.set_judge(
            [&, at](uint64_t number, const std::string& name) {
              if (number != at) return FaultyFiles::Act::kPass;
              point = name;
              return GetParam().act;
            },
            GetParam().error);
      }
      if (outcome.step == Step(3)) operations = std::max<uint64_t>(operations, files.points().size());
    };
    ASSERT_TRUE(train(epoch_on(files, kPath, 1), 1, 4, heard));
    SCOPED_TRACE("operation " + std::to_string(at) + ": " + point);
    ASSERT_EQ(outcomes.size(), 4u);
    if (outcomes[2].result == SaveOutcome::Result::kFailed) {
      EXPECT_THAT(outcomes[2].message, ::testing::HasSubstr(GetParam().error.message));
      EXPECT_THAT(outcomes[2].message, ::testing::HasSubstr("older checkpoints are as they were"));
    }
    EXPECT_EQ(outcomes[3].result, SaveOutcome::Result::kSaved) << outcomes[3].message;
    disk.lose_power(0, 1);
    EXPECT_EQ(recover(epoch_on(disk, kPath, 2)).step, 4u);
    if (HasFailure()) return;
  }
  EXPECT_GE(operations, 15u);
}

// The disk stays full: every save fails from then on, and what was there stays.
TEST_P(CheckpointErrors, a_fault_that_stays_leaves_the_older_checkpoints_and_training_goes_on) {
  PowerLossFiles disk;
  FaultyFiles files(disk);
  std::vector<SaveOutcome> outcomes;
  const auto heard = [&](const SaveOutcome& outcome) {
    outcomes.push_back(outcome);
    if (outcome.step != Step(2)) return;
    files.set_judge(
        [&](uint64_t, const std::string& name) {
          return name.starts_with("write") || (GetParam().act == FaultyFiles::Act::kFail && name.starts_with("sync"))
                     ? GetParam().act
                     : FaultyFiles::Act::kPass;
        },
        GetParam().error);
  };
  ASSERT_TRUE(train(epoch_on(files, kPath, 1), 1, 5, heard));
  ASSERT_EQ(outcomes.size(), 5u);
  for (size_t i = 2; i < 5; ++i) EXPECT_EQ(outcomes[i].result, SaveOutcome::Result::kFailed);
  disk.lose_power(0.5, 7);
  EXPECT_EQ(recover(epoch_on(disk, kPath, 2)).step, 2u);
}

INSTANTIATE_TEST_SUITE_P(Faults, CheckpointErrors,
                         ::testing::Values(Fault{"full_disk", FaultyFiles::Act::kFail,
                                                 Error(Code::kResourceExhausted, "No space left on device")},
                                           Fault{"short_write", FaultyFiles::Act::kHalf,
                                                 Error(Code::kResourceExhausted, "No space left on device")},
                                           Fault{"sync_error", FaultyFiles::Act::kFail,
                                                 Error(Code::kDataLoss, "Input/output error")}),
                         [](const auto& info) { return info.param.name; });

// Writes steps 1 and 2 and flips one bit of step 2; the vote has to name it and to take step 1.
void flip_and_recover(const std::string& file, uint64_t byte, const std::string& named) {
  SCOPED_TRACE(file + " byte " + std::to_string(byte));
  PowerLossFiles disk;
  ASSERT_TRUE(train(epoch_on(disk, kPath, 1), 1, 2, [](const SaveOutcome&) {}));
  const std::string folder = "step-000000000002-c1";
  disk.flip(std::string(kPath) + "/" + folder + "/" + file, byte);
  const Recovered recovered = recover(epoch_on(disk, kPath, 2, 1 + static_cast<uint32_t>(byte % 3)));
  EXPECT_EQ(recovered.step, 1u);
  ASSERT_EQ(recovered.damaged.size(), 1u);
  EXPECT_THAT(recovered.damaged[0], ::testing::AllOf(::testing::HasSubstr(folder), ::testing::HasSubstr(named)));
  const auto listed = *list_checkpoints(disk, kPath);
  ASSERT_EQ(listed.size(), 2u) << "the damaged one is not removed";
  EXPECT_FALSE(listed[0].intact);
  EXPECT_THAT(listed[0].problem, ::testing::HasSubstr(named));
}

TEST(CheckpointBits, a_flipped_bit_of_the_data_is_named_and_the_step_before_is_taken) {
  Random random(20);
  for (int i = 0; i < 12; ++i) {
    const uint32_t shard = i % 2;
    const std::string file = "shard-0000" + std::to_string(shard) + "-of-00002.safetensors";
    flip_and_recover(file, 4096 + random.below(900'000), file + ": digest differs in tensor");
  }
}

TEST(CheckpointBits, a_flipped_bit_of_a_header_is_named_and_the_step_before_is_taken) {
  for (const uint64_t byte : {uint64_t{0}, uint64_t{7}, uint64_t{8}, uint64_t{100}, uint64_t{4095}}) {
    flip_and_recover("shard-00001-of-00002.safetensors", byte,
                     "shard-00001-of-00002.safetensors: digest differs in the header");
  }
}

TEST(CheckpointBits, a_flipped_bit_of_the_manifest_is_named_and_the_step_before_is_taken) {
  Random random(21);
  for (int i = 0; i < 12; ++i)
    flip_and_recover("manifest.json", i < 4 ? uint64_t(i * 6) : random.below(1500), "manifest: ");
}

TEST(CheckpointWriters, of_two_living_writers_of_different_epochs_the_older_commits_nothing_more) {
  PowerLossFiles disk;
  std::vector<SaveOutcome> older;
  ASSERT_TRUE(train(epoch_on(disk, kPath, 1), 1, 4, [&](const SaveOutcome& outcome) {
    older.push_back(outcome);
    if (outcome.step != Step(2)) return;
    // While the older one lives on, the newer epoch begins, goes on from step 2 and saves other steps.
    ASSERT_TRUE(train(epoch_on(disk, kPath, 2), 3, 3,
                      [](const SaveOutcome& saved) { EXPECT_EQ(saved.result, SaveOutcome::Result::kSaved); }));
  }));
  ASSERT_EQ(older.size(), 4u);
  EXPECT_EQ(older[2].result, SaveOutcome::Result::kFailed);
  EXPECT_EQ(older[3].result, SaveOutcome::Result::kFailed);
  EXPECT_THAT(older[2].message, ::testing::HasSubstr("claim 2 is newer than ours"));
  EXPECT_EQ(recover(epoch_on(disk, kPath, 3)).step, 3u);
  const auto listed = *list_checkpoints(disk, kPath);
  EXPECT_EQ(listed.front().claim, 2u);
}

TEST(CheckpointLeftovers, stale_temporaries_and_unfinished_folders_of_older_epochs_are_removed) {
  PowerLossFiles disk;
  ASSERT_TRUE(train(epoch_on(disk, kPath, 1), 1, 2, [](const SaveOutcome&) {}));
  const std::string stale = std::string(kPath) + "/step-000000000009-c1";
  ASSERT_TRUE(disk.make_folder(stale));
  ASSERT_TRUE(replace_file(disk, stale + "/shard-00000-of-00002.safetensors", "half a shard"));
  ASSERT_TRUE(replace_file(disk, stale + "/manifest.json.tmp", "{"));
  EXPECT_EQ(recover(epoch_on(disk, kPath, 2)).step, 2u);
  EXPECT_FALSE(disk.list(stale));
}

}  // namespace
}  // namespace pitcrew::faults
