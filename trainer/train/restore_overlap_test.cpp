// A restart: ranks meet one another while the checkpoint is read. By the order of events: each side waits for the
// other, so that one after the other would never end.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "trainer/train/side_by_side.hpp"
#include "trainer/train/testing/training_ranks.hpp"

namespace pitcrew::trainer {
namespace {

// Something that happened, once.
class Signal {
 public:
  void give() {
    const std::scoped_lock lock(mutex_);
    given_ = true;
    changed_.notify_all();
  }
  // False where it didn't happen for long.
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return given_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool given_ = false;
};

Failure failure(const std::string& message) { return {Error(Code::kUnavailable, message), 75}; }

TEST(SideBySide, both_run_at_the_same_time) {
  Signal aside, here;
  bool met = true, ended = false;
  const End end = side_by_side(
      [&]() -> End {
        aside.give();
        if (!here.wait()) return failure("the other never came");
        return {};
      },
      [&]() -> End {
        here.give();
        met = aside.wait();
        return {};
      },
      [&] { ended = true; });
  EXPECT_FALSE(end);
  EXPECT_TRUE(met);
  EXPECT_FALSE(ended);
}

TEST(SideBySide, a_failure_here_ends_the_other_and_is_the_one_that_is_told) {
  Signal end_it;
  const End end = side_by_side(
      [&]() -> End {
        end_it.wait();
        return failure("cut off");
      },
      [&]() -> End { return failure("the cause"); }, [&] { end_it.give(); });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->error.message, "the cause");
}

TEST(SideBySide, a_failure_of_the_other_is_told_when_this_one_has_ended) {
  Signal failed;
  bool ended = false, finished = false;
  const End end = side_by_side(
      [&]() -> End {
        failed.give();
        return failure("damaged");
      },
      [&]() -> End {
        failed.wait();
        finished = true;
        return {};
      },
      [&] { ended = true; });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->error.message, "damaged");
  EXPECT_TRUE(finished);
  EXPECT_FALSE(ended);
}

// What holds reading and meeting back.
struct Gate {
  Signal reading, met;
  std::atomic<bool> in_time = true;
  Status meet;  // what meeting comes to
};

// Files of a checkpoint are read only when ranks have met.
class GatedFiles final : public FileSystem {
 public:
  explicit GatedFiles(Gate& gate) : gate_(gate) {}
  Result<std::unique_ptr<File>> open(const std::string& path, Open how) override {
    if (how == Open::kRead && path.ends_with(".safetensors")) {
      gate_.reading.give();
      if (!gate_.met.wait()) gate_.in_time = false;
    }
    return files_.open(path, how);
  }
  Status make_folder(const std::string& path) override { return files_.make_folder(path); }
  Status rename(const std::string& from, const std::string& to) override { return files_.rename(from, to); }
  Status link(const std::string& from, const std::string& to) override { return files_.link(from, to); }
  Result<std::vector<Entry>> list(const std::string& folder) override { return files_.list(folder); }
  Status remove(const std::string& path) override { return files_.remove(path); }
  Status remove_folder(const std::string& path) override { return files_.remove_folder(path); }
  Status sync_folder(const std::string& folder) override { return files_.sync_folder(folder); }
  Result<uint64_t> free_bytes(const std::string& path) override { return files_.free_bytes(path); }

 private:
  Gate& gate_;
  FileSystem& files_ = posix_file_system();
};

// The first broadcast of the training ranks is the invitation to NCCL's communicator: there they have met, and only
// when a checkpoint is being read.
class GatedComm final : public Comm {
 public:
  GatedComm(std::unique_ptr<Comm> inner, Gate& gate) : inner_(std::move(inner)), gate_(gate) {}
  uint32_t rank() const override { return inner_->rank(); }
  uint32_t size() const override { return inner_->size(); }
  Status barrier() override { return inner_->barrier(); }
  Status broadcast(std::span<std::byte> data, uint32_t root) override {
    if (++invited_ > 1) return inner_->broadcast(data, root);
    if (!gate_.reading.wait()) gate_.in_time = false;
    if (!gate_.meet) return gate_.meet;
    const Status done = inner_->broadcast(data, root);
    gate_.met.give();
    return done;
  }
  Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    return inner_->all_gather(mine, all);
  }
  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    return inner_->exchange(sends, receives);
  }
  void abort() override { inner_->abort(); }
  std::optional<uint32_t> lost_peer() const override { return inner_->lost_peer(); }

 private:
  std::unique_ptr<Comm> inner_;
  Gate& gate_;
  int invited_ = 0;
};

class RestoreOverlap : public TrainingRanks {
 protected:
  // Two ranks whose gradients go by NCCL; gated where there are gates.
  World run(uint64_t steps, Gate* gates = nullptr) {
    TrainConfig config = tiny();
    config.steps = steps;
    config.backend = CommBackend::kNccl;
    config.checkpoint.path = folder_ + "/run";
    std::vector<Channels> channels = memory_channels(2);
    std::vector<std::unique_ptr<GatedFiles>> files(2);
    for (uint32_t rank = 0; gates != nullptr && rank < 2; ++rank) {
      channels[rank][0] = std::make_unique<GatedComm>(std::move(channels[rank][0]), gates[rank]);
      files[rank] = std::make_unique<GatedFiles>(gates[rank]);
    }
    Hooks hooks;
    hooks.given = [&](RankEnvironment& environment, TrainerServices& services, Channels&) {
      services.host_nccl = fake_nccl();
      services.stop_asked = nullptr;
      if (files[environment.rank]) services.files = files[environment.rank].get();
    };
    return train_ranks(config, std::move(channels), hooks);
  }

  static std::shared_ptr<const nccl::Api> fake_nccl() {
    return *nccl::load(std::string(PITCREW_BIN_DIR) + "/../lib/fake-nccl/libnccl.so.2");
  }
};

TEST_F(RestoreOverlap, ranks_meet_while_the_checkpoint_is_read) {
  expect_done(run(3));
  Gate gates[2];
  const World world = run(5, gates);
  expect_done(world);
  EXPECT_TRUE(gates[0].in_time && gates[1].in_time) << "one waited for the other's end";
  EXPECT_NE(world.printed.find("resuming from step 3"), std::string::npos) << world.printed;
}

TEST_F(RestoreOverlap, ranks_that_cannot_meet_say_so_once_and_reading_ends) {
  expect_done(run(3));
  Gate gates[2];
  for (Gate& gate : gates) {
    gate.meet = Error(Code::kUnavailable, "rank 1 is gone");
    gate.met.give();  // reading goes on
  }
  // Whoever ends second may know no more than that the other is gone.
  std::string all;
  for (const Outcome& outcome : run(5, gates).outcomes) {
    EXPECT_EQ(outcome.exit_code, 75);
    EXPECT_EQ(outcome.message.find("gone"), outcome.message.rfind("gone")) << outcome.message;
    all += outcome.message + "\n";
  }
  EXPECT_NE(all.find("rank 1 is gone"), std::string::npos) << all;
}

TEST_F(RestoreOverlap, a_damaged_checkpoint_is_told_once_when_ranks_have_met) {
  expect_done(run(3));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ + "/run")) {
    if (entry.path().extension() != ".safetensors") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x55');
  }
  Gate gates[2];
  for (const Outcome& outcome : run(5, gates).outcomes) {
    EXPECT_EQ(outcome.exit_code, 65);
    const size_t first = outcome.message.find("no checkpoint can be used");
    ASSERT_NE(first, std::string::npos) << outcome.message;
    EXPECT_EQ(outcome.message.find("no checkpoint can be used", first + 1), std::string::npos) << outcome.message;
  }
  EXPECT_TRUE(gates[0].in_time && gates[1].in_time);
}

}  // namespace
}  // namespace pitcrew::trainer
