#include "trainer/train/step_parts.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::trainer {
namespace {

// A storage whose removals are lost, as by a writer that is killed before them.
class NothingRemoved final : public Storage {
 public:
  explicit NothingRemoved(std::unique_ptr<Storage> below) : below_(std::move(below)) {}
  const std::string& path() const override { return below_->path(); }
  Result<std::unique_ptr<Upload>> write(const std::string& name) override { return below_->write(name); }
  Status replace(const std::string& name, std::string_view content) override { return below_->replace(name, content); }
  Status create(const std::string& name, std::string_view content) override { return below_->create(name, content); }
  Result<std::vector<Entry>> list(const std::string& folder) override { return below_->list(folder); }
  Result<std::unique_ptr<File>> open(const std::string& name) override { return below_->open(name); }
  Result<std::string> read(const std::string& name, uint64_t limit) override { return below_->read(name, limit); }
  Status remove(const std::string&) override { return {}; }
  Status remove_folder(const std::string& name) override { return below_->remove_folder(name); }

 private:
  const std::unique_ptr<Storage> below_;
};

class StepPartsTest : public ::testing::Test {
 protected:
  std::unique_ptr<Storage> storage() { return *open_storage(posix_file_system(), folder_.path() + "/checkpoints"); }

  static std::string line(uint64_t step) { return "{\"step\":" + std::to_string(step) + ",\"loss\":1}\n"; }

  // Steps from `first` on, `parts` parts of two steps each.
  void train(std::unique_ptr<Storage> place, uint64_t first, uint64_t parts, uint64_t epoch) {
    std::string gap;
    auto log = StepParts::open(std::move(place), Step(first - 1), EpochNumber(epoch), gap);
    ASSERT_TRUE(log.ok()) << log.error().message;
    EXPECT_EQ(gap, "");
    for (uint64_t part = 0; part < parts; ++part) {
      for (uint64_t step = first + 2 * part; step < first + 2 * part + 2; ++step)
        (*log)->append(Step(step), line(step));
      (*log)->close();
      ASSERT_TRUE((*log)->settle().ok());
    }
  }

  struct Log {
    size_t parts = 0;
    std::string text, gap;
  };
  // What a run that resumes at `step` finds.
  Log resumed_at(uint64_t step, uint64_t epoch) {
    Log log;
    EXPECT_TRUE(StepParts::open(storage(), Step(step), EpochNumber(epoch), log.gap).ok());
    const auto place = storage();
    auto entries = *place->list("steps");
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    for (const auto& entry : entries) log.text += *place->read("steps/" + entry.name, 1 << 20);
    log.parts = entries.size();
    return log;
  }
  static std::string lines(uint64_t last) {
    std::string all;
    for (uint64_t step = 1; step <= last; ++step) all += line(step);
    return all;
  }

  TempFolder folder_;
};

TEST_F(StepPartsTest, many_small_parts_become_few_and_the_log_stays_whole) {
  train(storage(), 1, 100, 1);
  const Log log = resumed_at(200, 2);
  EXPECT_EQ(log.text, lines(200));
  EXPECT_EQ(log.gap, "");
  EXPECT_LE(log.parts, StepParts::kMerge);
}

TEST_F(StepPartsTest, parts_of_several_epochs_are_merged_and_can_be_cut_in_the_middle) {
  for (uint64_t epoch = 1; epoch <= 10; ++epoch) train(storage(), 1 + 10 * (epoch - 1), 5, epoch);
  EXPECT_LE(resumed_at(100, 11).parts, StepParts::kMerge);
  const Log log = resumed_at(37, 12);
  EXPECT_EQ(log.text, lines(37));
  EXPECT_EQ(log.gap, "");
  train(storage(), 38, 30, 13);
  EXPECT_EQ(resumed_at(97, 14).text, lines(97));
}

TEST_F(StepPartsTest, a_crash_between_the_whole_and_its_pieces_loses_and_doubles_nothing) {
  train(std::make_unique<NothingRemoved>(storage()), 1, 40, 1);
  EXPECT_GT((*storage()->list("steps")).size(), 40u);
  const Log log = resumed_at(80, 2);
  EXPECT_EQ(log.text, lines(80));
  EXPECT_EQ(log.gap, "");
  EXPECT_LE(log.parts, StepParts::kMerge);
}

}  // namespace
}  // namespace pitcrew::trainer
