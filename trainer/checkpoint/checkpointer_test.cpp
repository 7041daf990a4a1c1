#include "trainer/checkpoint/checkpointer.hpp"

#include <fstream>
#include <numeric>

#include <gmock/gmock.h>

#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

using testing::Epoch;
using testing::RankView;
using testing::run_epoch;
using testing::save_steps;
using testing::TemporaryFolder;
using testing::ToyState;

class CheckpointerTest : public ::testing::Test {
 protected:
  Epoch epoch(uint32_t ranks) {
    Epoch epoch{.ranks = ranks, .number = ++number_};
    epoch.checkpoint.path = folder.at("checkpoints");
    epoch.checkpoint.every_steps = 1;
    return epoch;
  }
  Epoch with_memory(uint32_t ranks) {
    Epoch made = epoch(ranks);
    made.checkpoint.memory_steps = 1;
    made.memory = [this](uint32_t rank) {
      const std::string path = folder.at("memory-" + std::to_string(rank));
      std::filesystem::create_directories(path);
      return path;
    };
    return made;
  }
  void save(const Epoch& epoch, uint64_t from, uint64_t to, SaveKinds kinds = {.durable = true}) {
    ASSERT_TRUE(run_epoch(epoch, [&](RankView rank) {
      const auto restored = rank.checkpointer.restore({});
      ASSERT_TRUE(restored) << restored.error().message;
      save_steps(rank, from, to, kinds);
    }));
  }
  // Restores on every rank, expects the state of `step` on each, and gives what rank 0 was told.
  Restored expect_restored(const Epoch& epoch, uint64_t step, std::vector<uint64_t>* read = nullptr) {
    Restored seen;
    std::vector<uint64_t> bytes(epoch.ranks);
    EXPECT_TRUE(run_epoch(epoch, [&](RankView rank) {
      const auto restored = rank.checkpointer.restore({});
      ASSERT_TRUE(restored) << restored.error().message;
      ASSERT_TRUE(restored->has_value());
      EXPECT_EQ((*restored)->step, Step(step));
      EXPECT_TRUE(rank.state.holds(step)) << "rank " << rank.rank;
      EXPECT_EQ((*restored)->state, (Json{{"next", step + 1}}));
      bytes[rank.rank] = rank.checkpointer.bytes_read();
      if (rank.rank == 0) seen = **restored;
    }));
    if (read != nullptr) *read = bytes;
    return seen;
  }
  std::string newest_folder() {
    const auto listed = list_checkpoints(posix_file_system(), folder.at("checkpoints"));
    EXPECT_TRUE(listed && !listed->empty());
    return listed && !listed->empty() ? listed->front().name : "";
  }
  static void flip(const std::string& path, uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    char byte = 0;
    file.get(byte);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 0x10));
    ASSERT_TRUE(file.good()) << path;
  }

  TemporaryFolder folder;
  uint64_t number_ = 0;
};

TEST_F(CheckpointerTest, an_empty_folder_restores_nothing) {
  ASSERT_TRUE(run_epoch(epoch(2), [](RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_TRUE(restored);
    EXPECT_FALSE(restored->has_value());
  }));
}

TEST_F(CheckpointerTest, what_one_rank_saved_it_restores) {
  save(epoch(1), 1, 3);
  const Restored restored = expect_restored(epoch(1), 3);
  EXPECT_EQ(restored.source, page::Source::kFileSystem);
  EXPECT_TRUE(restored.bit_for_bit) << restored.why_not;
}

TEST_F(CheckpointerTest, any_world_size_reads_what_another_one_saved) {
  uint32_t saved_by = 4;
  save(epoch(4), 1, 1);
  for (const uint32_t ranks : {2u, 1u, 3u}) {
    const uint64_t step = ranks + 10;
    const auto made = epoch(ranks);
    ASSERT_TRUE(run_epoch(made, [&](RankView rank) {
      const auto restored = rank.checkpointer.restore({});
      ASSERT_TRUE(restored && *restored) << "from " << saved_by << " to " << ranks;
      save_steps(rank, step, step, {.durable = true});
    }));
    saved_by = ranks;
    expect_restored(epoch(2), step);
  }
}

TEST_F(CheckpointerTest, all_ranks_together_read_each_byte_once) {
  save(epoch(4), 1, 1);
  for (const uint32_t ranks : {1u, 3u, 4u}) {
    std::vector<uint64_t> read;
    expect_restored(epoch(ranks), 1, &read);
    const double ratio = static_cast<double>(std::accumulate(read.begin(), read.end(), uint64_t{0})) /
                         static_cast<double>(ToyState().total());
    EXPECT_LE(ratio, 1.1) << ranks << " ranks";
    EXPECT_GE(ratio, 1.0);
  }
}

TEST_F(CheckpointerTest, bits_depend_on_what_the_run_says_and_not_on_the_number_of_ranks) {
  save(epoch(4), 1, 1);
  for (const uint32_t ranks : {2u, 3u, 5u}) EXPECT_TRUE(expect_restored(epoch(ranks), 1).bit_for_bit) << ranks;
  auto other = epoch(4);
  other.run.bits_depend_on = Json{{"threads", 2}};
  EXPECT_THAT(expect_restored(other, 1).why_not, ::testing::HasSubstr("threads was 1 and is 2"));
}

TEST_F(CheckpointerTest, the_newest_three_are_kept) {
  save(epoch(2), 1, 6);
  const auto listed = *list_checkpoints(posix_file_system(), folder.at("checkpoints"));
  ASSERT_EQ(listed.size(), 3u);
  EXPECT_EQ(listed[0].step, Step(6));
  EXPECT_EQ(listed[2].step, Step(4));
  for (const auto& checkpoint : listed) EXPECT_TRUE(checkpoint.intact) << checkpoint.problem;
}

TEST_F(CheckpointerTest, a_flipped_bit_makes_all_ranks_take_the_step_before_and_is_named) {
  save(epoch(2), 1, 2);
  const std::string name = newest_folder();
  flip(folder.at("checkpoints/" + name + "/shard-00001-of-00002.safetensors"), 500'000);
  const Restored restored = expect_restored(epoch(3), 1);
  ASSERT_EQ(restored.damaged.size(), 1u);
  EXPECT_THAT(restored.damaged[0], ::testing::HasSubstr("shard-00001-of-00002.safetensors: digest differs in tensor"));
  // Named afterwards as well, not counted by keep, and not removed.
  save(epoch(1), 3, 6);
  const auto listed = *list_checkpoints(posix_file_system(), folder.at("checkpoints"));
  const auto damaged = std::find_if(listed.begin(), listed.end(), [&](const auto& c) { return c.name == name; });
  ASSERT_NE(damaged, listed.end());
  EXPECT_FALSE(damaged->intact);
  EXPECT_EQ(listed.size(), 4u);
}

TEST_F(CheckpointerTest, where_all_are_damaged_it_says_so_and_does_not_start_afresh) {
  save(epoch(1), 1, 1);
  flip(folder.at("checkpoints/" + newest_folder() + "/manifest.json"), 300);
  ASSERT_TRUE(run_epoch(epoch(2), [](RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error().code, Code::kDataLoss);
    EXPECT_THAT(restored.error().message, ::testing::HasSubstr("checksum differs"));
  }));
}

TEST_F(CheckpointerTest, another_model_and_another_dataset_are_errors) {
  save(epoch(1), 1, 1);
  auto other = epoch(1);
  other.embedding = 1000;
  ASSERT_TRUE(run_epoch(other, [](RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error().code, Code::kInvalidArgument);
    EXPECT_THAT(restored.error().message, ::testing::HasSubstr("tensor embedding has another shape"));
  }));
  auto data = epoch(1);
  data.run.dataset = "dataset-2";
  ASSERT_TRUE(run_epoch(data, [](RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_FALSE(restored);
    EXPECT_THAT(restored.error().message, ::testing::HasSubstr("another dataset"));
  }));
}

TEST_F(CheckpointerTest, an_unknown_scheme_is_refused_by_name) {
  auto made = epoch(1);
  made.checkpoint.path = "gs://bucket/prefix";
  const Status opened = run_epoch(made, [](RankView) {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::kUnsupported);
  EXPECT_THAT(opened.error().message, ::testing::HasSubstr("gs://bucket/prefix: unknown scheme"));
}

TEST_F(CheckpointerTest, finish_saves_the_last_step_once_and_releases_the_claim) {
  ASSERT_TRUE(run_epoch(epoch(2), [](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    save_steps(rank, 1, 1, {.durable = true});
    rank.state.fill(2);
    ASSERT_TRUE(rank.checkpointer.finish(Step(2), Json{{"next", 3}}));
    EXPECT_EQ(rank.checkpointer.poll().size(), 1u);
    ASSERT_TRUE(rank.checkpointer.finish(Step(2), Json{{"next", 3}}));
    EXPECT_EQ(rank.checkpointer.poll().size(), 0u);
  }));
  EXPECT_TRUE(std::filesystem::exists(folder.at("checkpoints/claims/1.released")));
  // So another job need not wait.
  auto other = epoch(1);
  other.job = "job-2";
  expect_restored(other, 2);
}

TEST_F(CheckpointerTest, weights_are_loaded_by_name_without_a_communicator) {
  save(epoch(3), 1, 2);
  const auto loaded = load_tensors(posix_file_system(), folder.at("checkpoints"),
                                   [](const std::string& name) { return name != "half"; });
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->step, Step(2));
  EXPECT_EQ(loaded->tensors.size(), 5u);
  ToyState expected;
  expected.fill(2);
  EXPECT_EQ(std::memcmp(loaded->tensors[0].bytes.data(), expected.tensors()[0].data, expected.tensors()[0].bytes()), 0);
}

TEST_F(CheckpointerTest, verify_reads_every_byte_and_names_the_damage) {
  save(epoch(2), 1, 1);
  const std::string path = folder.at("checkpoints/" + newest_folder());
  ASSERT_TRUE(verify_checkpoint(posix_file_system(), path)->intact);
  flip(path + "/shard-00000-of-00002.safetensors", 20);
  const auto verified = verify_checkpoint(posix_file_system(), path);
  ASSERT_TRUE(verified);
  EXPECT_FALSE(verified->intact);
  EXPECT_THAT(verified->problem,
              ::testing::HasSubstr("shard-00000-of-00002.safetensors: digest differs in the header"));
}

TEST_F(CheckpointerTest, a_memory_checkpoint_newer_than_the_durable_one_is_taken) {
  const auto made = with_memory(2);
  ASSERT_TRUE(run_epoch(made, [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    EXPECT_EQ(rank.checkpointer.memory_off_reason(), "");
    save_steps(rank, 1, 1, {.durable = true, .memory = true});
    save_steps(rank, 2, 4, {.memory = true});
  }));
  EXPECT_EQ(expect_restored(with_memory(2), 4).source, page::Source::kOwnMemory);
  // It still counts in the epoch after, until a newer one does.
  ASSERT_TRUE(run_epoch(with_memory(2), [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    save_steps(rank, 5, 6, {.memory = true});
  }));
  EXPECT_EQ(expect_restored(with_memory(2), 6).step, Step(6));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.at("memory-0/own")), {}), 1);
}

TEST_F(CheckpointerTest, damage_in_memory_makes_all_take_the_durable_copy_of_that_step) {
  ASSERT_TRUE(run_epoch(with_memory(2), [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    save_steps(rank, 1, 2, {.durable = true, .memory = true});
  }));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.at("memory-1/own"))) {
    if (entry.path().extension() == ".safetensors") flip(entry.path().string(), 300'000);
  }
  const Restored restored = expect_restored(with_memory(2), 2);
  EXPECT_EQ(restored.source, page::Source::kFileSystem);
  EXPECT_EQ(restored.damaged.size(), 1u);
}

TEST_F(CheckpointerTest, a_newer_claim_stops_the_older_writer_before_its_manifest) {
  const auto zombie = epoch(1);
  const auto successor = epoch(1);
  ASSERT_TRUE(run_epoch(zombie, [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    save_steps(rank, 1, 5, {.durable = true});
    save(successor, 3, 3);
    std::vector<SaveOutcome> outcomes;
    save_steps(rank, 6, 7, {.durable = true}, &outcomes);
    ASSERT_EQ(outcomes.size(), 2u);
    EXPECT_EQ(outcomes[0].result, SaveOutcome::Result::kFailed);
    EXPECT_THAT(outcomes[0].message, ::testing::HasSubstr("is newer than ours"));
    EXPECT_EQ(outcomes[1].result, SaveOutcome::Result::kFailed);
  }));
  // The successor's step 3 is newer than the zombie's step 5.
  expect_restored(epoch(2), 3);
}

TEST_F(CheckpointerTest, any_grid_reads_what_any_other_saved_and_every_byte_once) {
  struct Shape {
    uint32_t ranks, shards, tensor = 1;
  };
  uint64_t step = 0;
  for (const auto& [before, after] : std::vector<std::pair<Shape, Shape>>{{{8, 4}, {4, 2}},
                                                                          {{4, 2}, {3, 3}},
                                                                          {{3, 3}, {16, 8}},
                                                                          {{4, 4}, {1, 1}},
                                                                          {{2, 1}, {6, 3}},
                                                                          {{5, 5}, {5, 1}},
                                                                          {{2, 1, 2}, {1, 1}},
                                                                          {{1, 1}, {2, 1, 2}},
                                                                          {{4, 1, 2}, {4, 1, 4}},
                                                                          {{8, 2, 2}, {2, 1, 2}},
                                                                          {{4, 1, 4}, {6, 3}},
                                                                          {{3, 1, 3}, {4, 2, 2}},
                                                                          {{8, 2, 2}, {4, 2, 2}},
                                                                          {{4, 2, 2}, {3, 3}},
                                                                          {{3, 3}, {16, 4, 2}},
                                                                          {{16, 4, 2}, {8, 2, 4}},
                                                                          {{8, 4, 2}, {8, 4, 1}}}) {
    const auto text = [](const Shape& shape) {
      return std::to_string(shape.ranks) + "/" + std::to_string(shape.shards) + "/" + std::to_string(shape.tensor);
    };
    const std::string what = text(before) + " to " + text(after);
    ++step;
    Epoch saving = epoch(before.ranks), restoring = epoch(after.ranks);
    saving.shards = before.shards;
    restoring.shards = after.shards;
    saving.tensor = before.tensor;
    restoring.tensor = after.tensor;
    ASSERT_TRUE(run_epoch(saving, [&](RankView rank) {
      ASSERT_TRUE(rank.checkpointer.restore({}));
      save_steps(rank, step, step, {.durable = true});
    })) << what;
    std::vector<uint64_t> read;
    expect_restored(restoring, step, &read);
    const auto saved = list_checkpoints(posix_file_system(), folder.at("checkpoints"));
    ASSERT_TRUE(saved) << saved.error().message;
    EXPECT_TRUE(saved->front().intact) << what;
    const uint64_t all = std::accumulate(read.begin(), read.end(), uint64_t{0});
    EXPECT_LE(static_cast<double>(all), 1.1 * static_cast<double>(saved->front().bytes)) << what;
    const auto verified = verify_checkpoint(posix_file_system(), folder.at("checkpoints"));
    ASSERT_TRUE(verified && verified->intact) << what;
    // For people's commands a tensor is whole, whoever saved it.
    const auto loaded = load_tensors(posix_file_system(), folder.at("checkpoints"), {});
    ASSERT_TRUE(loaded) << loaded.error().message;
    ToyState expected;
    expected.fill(step);
    ASSERT_EQ(loaded->tensors.size(), expected.tensors().size()) << what;
    for (size_t t = 0; t < loaded->tensors.size(); ++t) {
      const auto& bytes = loaded->tensors[t].bytes;
      ASSERT_EQ(bytes.size(), expected.tensors()[t].bytes()) << what;
      EXPECT_TRUE(bytes.empty() || std::memcmp(bytes.data(), expected.tensors()[t].data, bytes.size()) == 0) << what;
    }
  }
}

}  // namespace
}  // namespace pitcrew::trainer
