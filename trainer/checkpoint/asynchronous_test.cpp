// Saving beside training, in earnest: a copy stream that the test holds back, released buffers filled with poison, and
// the thread sanitizer watching (label concurrent).
#include <condition_variable>
#include <mutex>

#include <gmock/gmock.h>

#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

using testing::Epoch;
using testing::RankView;
using testing::run_epoch;
using testing::TemporaryFolder;
using testing::ToyState;

// Copies only as many as the test lets through.
class GatedCopier final : public Copier {
 public:
  void begin() override {}
  Ticket copy_out(std::byte* host, const std::byte* device, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    asked_.push_back({host, device, bytes});
    changed_.notify_all();
    return asked_.size();
  }
  void hold_compute(Ticket ticket) override { wait(ticket); }
  void wait(Ticket ticket) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= ticket; });
  }
  void copy_in(std::byte* device, const std::byte* host, size_t bytes) override { std::memcpy(device, host, bytes); }

  // In the calling thread, which is the copy stream: all that is asked for, until it is stopped.
  void run(std::stop_token stop) {
    while (!stop.stop_requested()) {
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [&] { return done_ < asked_.size(); })) return;
      }
      let_through(1);
    }
  }
  // The next so many.
  void let_through(size_t copies) {
    for (size_t i = 0; i < copies; ++i) {
      Copy copy;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return done_ < asked_.size(); });
        copy = asked_[done_];
      }
      std::memcpy(copy.to, copy.from, copy.bytes);
      const std::lock_guard lock(mutex_);
      ++done_;
      changed_.notify_all();
    }
  }

 private:
  struct Copy {
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    size_t bytes = 0;
  };
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Copy> asked_;
  size_t done_ = 0;
};

class Asynchronous : public ::testing::Test {
 protected:
  Epoch epoch(uint32_t ranks) {
    Epoch epoch{.ranks = ranks, .number = ++number_};
    epoch.checkpoint.path = folder.at("checkpoints");
    epoch.checkpoint.keep = 100;
    return epoch;
  }
  static std::vector<SaveOutcome> wait_for(Checkpointer& checkpointer, size_t count) {
    std::vector<SaveOutcome> all;
    while (all.size() < count) {
      for (auto& outcome : checkpointer.poll()) all.push_back(std::move(outcome));
      std::this_thread::yield();
    }
    return all;
  }
  void expect_steps_intact(const std::vector<uint64_t>& steps) {
    for (const uint64_t step : steps) {
      const auto listed = *list_checkpoints(posix_file_system(), folder.at("checkpoints"));
      const auto found =
          std::find_if(listed.begin(), listed.end(), [&](const auto& c) { return c.step == Step(step); });
      ASSERT_NE(found, listed.end()) << "step " << step;
      const auto loaded = load_tensors(posix_file_system(), folder.at("checkpoints/" + found->name));
      ASSERT_TRUE(loaded) << loaded.error().message;
      ToyState expected;
      expected.fill(step);
      for (size_t t = 0; t < loaded->tensors.size(); ++t) {
        const StateTensor& wanted = expected.tensors()[t];
        if (wanted.bytes() == 0) continue;
        EXPECT_EQ(std::memcmp(loaded->tensors[t].bytes.data(), wanted.data, wanted.bytes()), 0) << wanted.name;
      }
    }
  }

  TemporaryFolder folder;
  uint64_t number_ = 0;
};

TEST_F(Asynchronous, begin_returns_before_anything_is_copied_and_the_optimizer_waits_only_for_its_tensor) {
  GatedCopier* gate = nullptr;
  Epoch made = epoch(1);
  made.copier = [&] {
    auto copier = std::make_unique<GatedCopier>();
    gate = copier.get();
    return copier;
  };
  ASSERT_TRUE(run_epoch(made, [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    rank.state.fill(1);
    rank.checkpointer.begin(Step(1), Json::object(), {.durable = true});
    EXPECT_TRUE(rank.checkpointer.poll().empty());
    // Tensor 0 is through; tensor 1 isn't, and tensor 4 has no elements.
    gate->let_through(1);
    rank.checkpointer.hold_mutation(0);
    std::memset(rank.state.tensors()[0].data, 0x77, rank.state.tensors()[0].bytes());
    rank.checkpointer.hold_mutation(4);
    std::thread stream([&] { gate->let_through(4); });
    rank.checkpointer.hold_mutation();
    rank.state.fill(2);
    const auto outcomes = wait_for(rank.checkpointer, 1);
    EXPECT_EQ(outcomes[0].result, SaveOutcome::Result::kSaved) << outcomes[0].message;
    stream.join();
  }));
  expect_steps_intact({1});
}

TEST_F(Asynchronous, when_no_buffer_is_free_the_save_is_skipped_and_counted_on_all_ranks) {
  static thread_local GatedCopier* gate = nullptr;  // each rank is a thread
  Epoch made = epoch(2);
  made.copier = [] {
    auto copier = std::make_unique<GatedCopier>();
    gate = copier.get();
    return copier;
  };
  ASSERT_TRUE(run_epoch(made, [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    rank.state.fill(3);
    for (uint64_t step = 1; step <= 3; ++step) rank.checkpointer.begin(Step(step), Json::object(), {.durable = true});
    std::jthread stream([copier = gate](std::stop_token stop) { copier->run(stop); });
    const auto outcomes = wait_for(rank.checkpointer, 3);
    size_t skipped = 0;
    for (const auto& outcome : outcomes) skipped += outcome.result == SaveOutcome::Result::kSkipped;
    EXPECT_EQ(skipped, 1u);
    EXPECT_EQ(rank.checkpointer.skipped(), 1u);
  }));
}

// A copy stream that yields a random number of times before each copy.
class SlowCopier final : public Copier {
 public:
  explicit SlowCopier(uint64_t seed) : random_(seed), worker_([this](std::stop_token stop) { run(stop); }) {}
  void begin() override {}
  Ticket copy_out(std::byte* host, const std::byte* device, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    asked_.push_back([=] { std::memcpy(host, device, bytes); });
    changed_.notify_all();
    return asked_.size();
  }
  void hold_compute(Ticket ticket) override { wait(ticket); }
  void wait(Ticket ticket) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= ticket; });
  }
  void copy_in(std::byte* device, const std::byte* host, size_t bytes) override { std::memcpy(device, host, bytes); }

 private:
  void run(std::stop_token stop) {
    while (true) {
      std::function<void()> copy;
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [&] { return done_ < asked_.size(); })) return;
        copy = asked_[done_];
      }
      for (uint64_t i = random_.below(2000); i > 0; --i) std::this_thread::yield();
      copy();
      const std::lock_guard lock(mutex_);
      ++done_;
      changed_.notify_all();
    }
  }
  Random random_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<std::function<void()>> asked_;
  size_t done_ = 0;
  std::jthread worker_;
};

TEST_F(Asynchronous, with_slow_copies_and_poisoned_buffers_every_saved_step_is_what_it_was) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::filesystem::remove_all(folder.at("checkpoints"));
    Epoch made = epoch(2);
    made.copier = [seed] { return std::make_unique<SlowCopier>(seed); };
    made.checkpoint.memory_steps = 1;
    made.memory = [&](uint32_t rank) {
      const std::string path = folder.at("memory-" + std::to_string(rank));
      std::filesystem::create_directories(path);
      return path;
    };
    std::vector<uint64_t> saved;
    std::optional<uint64_t> newest_in_memory;
    ASSERT_TRUE(run_epoch(made, [&](RankView rank) {
      ASSERT_TRUE(rank.checkpointer.restore({}));
      size_t asked = 0, heard = 0;
      const auto hear = [&] {
        for (const auto& outcome : rank.checkpointer.poll()) {
          ++heard;
          EXPECT_NE(outcome.result, SaveOutcome::Result::kFailed) << outcome.message;
          if (rank.rank != 0 || outcome.result != SaveOutcome::Result::kSaved) continue;
          if (outcome.place == Place::kDurable) saved.push_back(outcome.step.value);
          if (outcome.place == Place::kMemory) newest_in_memory = outcome.step.value;
        }
      };
      for (uint64_t step = 1; step <= 12; ++step) {
        ToyState next;  // the forward and backward pass: reads, and writes elsewhere
        next.fill(step);
        for (size_t t = 0; t < next.tensors().size(); ++t) {
          rank.checkpointer.hold_mutation(t);
          const StateTensor& tensor = rank.state.tensors()[t];
          if (tensor.bytes() > 0) std::memcpy(tensor.data, next.tensors()[t].data, tensor.bytes());
        }
        const SaveKinds kinds{.durable = step % 3 == 0, .memory = true};
        rank.checkpointer.begin(Step(step), Json{{"next", step + 1}}, kinds);
        asked += 1u + kinds.durable;
        hear();
      }
      while (heard < asked) {
        hear();
        std::this_thread::yield();
      }
    }));
    EXPECT_FALSE(saved.empty());
    expect_steps_intact(saved);
    ASSERT_TRUE(newest_in_memory);
    ASSERT_TRUE(run_epoch(epoch(2), [&](RankView rank) { ASSERT_TRUE(rank.checkpointer.restore({})); }));
    std::filesystem::remove_all(folder.at("memory-0"));
    std::filesystem::remove_all(folder.at("memory-1"));
  }
}

TEST_F(Asynchronous, a_lost_peer_ends_saving_with_an_error_and_without_a_hang) {
  MemoryGroup group(2);
  ManualClock clock;
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      const auto comm = group.take(r);
      ToyState state;
      ThreadCopier copier;
      CheckpointerSettings settings{.job = {.uid = "job"}, .epoch = EpochNumber(1), .slot = Slot(r)};
      settings.checkpoint.path = folder.at("checkpoints");
      auto checkpointer =
          Checkpointer::open(settings, {.clock = &clock, .comm = comm.get(), .copier = &copier}, state.tensors(), {});
      ASSERT_TRUE(checkpointer);
      ASSERT_TRUE((*checkpointer)->restore({}));
      if (r == 1) {
        group.kill(1);
        return;
      }
      (*checkpointer)->begin(Step(1), Json::object(), {.durable = true});
      const auto outcomes = wait_for(**checkpointer, 1);
      EXPECT_EQ(outcomes[0].result, SaveOutcome::Result::kFailed);
      EXPECT_FALSE((*checkpointer)->finish(Step(2), Json::object()));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(list_checkpoints(posix_file_system(), folder.at("checkpoints"))->empty() ||
              !list_checkpoints(posix_file_system(), folder.at("checkpoints"))->front().intact);
}

}  // namespace
}  // namespace pitcrew::trainer
