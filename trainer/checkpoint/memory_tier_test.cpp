// Checkpoints in memory and their copies on peers, with launchers that are a few functions over folders.
#include <csignal>
#include <fstream>
#include <mutex>

#include <gmock/gmock.h>
#include <sys/resource.h>

#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;
using namespace launcher_socket;  // the messages
using testing::Epoch;
using testing::RankView;
using testing::run_epoch;
using testing::save_steps;
using testing::TemporaryFolder;

// Launchers of all replicas: replica n keeps its copies with replica n + 1.
class Launchers {
 public:
  explicit Launchers(std::string root) : root_(std::move(root)) {}

  std::string memory(uint32_t slot) const {
    const std::string path = root_ + "/memory-" + std::to_string(slot);
    fs::create_directories(path);
    return path;
  }
  void start(uint32_t slots, uint32_t also_running = 0) {
    slots_ = slots;
    running_ = std::max(slots, also_running);
    clients_.clear();
    for (uint32_t slot = 0; slot < slots; ++slot) clients_.push_back(std::make_unique<Client>(*this, slot));
  }
  LauncherClient* client(uint32_t slot) { return clients_[slot].get(); }
  void fail_pushes(bool fail) { fail_pushes_ = fail; }
  std::vector<std::string> evidence;

 private:
  class Client final : public LauncherClient {
   public:
    Client(Launchers& all, uint32_t slot) : all_(all), slot_(slot) {}
    Result<Answer> call(const Request& request) override {
      const std::lock_guard lock(all_.mutex_);
      return std::visit([this](const auto& message) { return all_.serve(slot_, message); }, request);
    }
    void abort() override {}

   private:
    Launchers& all_;
    const uint32_t slot_;
  };

  uint32_t peer_of(uint32_t slot) const { return (slot + 1) % slots_; }
  std::string copy_at(uint32_t slot, const std::string& checkpoint) const {
    return memory(peer_of(slot)) + "/peer/" + std::to_string(slot) + "/" + checkpoint;
  }

  Result<Answer> serve(uint32_t slot, const Push& push) {
    if (fail_pushes_) return Error(Code::kUnavailable, "peer 1 can't be reached");
    Answer answer;
    if (slots_ < 2) return answer;
    fs::create_directories(copy_at(slot, push.checkpoint));
    for (const auto& file : push.files) {
      fs::copy_file(memory(slot) + "/own/" + push.checkpoint + "/" + file, copy_at(slot, push.checkpoint) + "/" + file,
                    fs::copy_options::overwrite_existing);
    }
    answer.copies.push_back(Slot(peer_of(slot)));
    return answer;
  }
  Result<Answer> serve(uint32_t slot, const List&) {
    Answer answer;
    for (uint32_t other = 0; other < running_; ++other) {
      Held held{.slot = Slot(other), .self = other == slot};
      const auto files_below = [&](const std::string& folder) {
        std::vector<std::string> files;
        if (!fs::exists(folder)) return files;
        for (const auto& entry : fs::recursive_directory_iterator(folder)) {
          if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), folder).string());
        }
        return files;
      };
      held.own = files_below(memory(other) + "/own");
      for (uint32_t of = 0; of < running_; ++of) {
        const auto files = files_below(memory(other) + "/peer/" + std::to_string(of));
        if (!files.empty()) held.peer.push_back({Slot(of), files});
      }
      answer.held.push_back(std::move(held));
    }
    return answer;
  }
  Result<Answer> serve(uint32_t slot, const Fetch& fetch) {
    ++fetches;
    std::ifstream from(memory(fetch.slot.value) + "/" + fetch.path, std::ios::binary);
    std::ofstream to(memory(slot) + "/fetch/" + fetch.into, std::ios::binary);
    for (const auto& range : fetch.ranges) {
      std::string bytes(range.length, '\0');
      from.seekg(static_cast<std::streamoff>(range.offset));
      from.read(bytes.data(), static_cast<std::streamsize>(range.length));
      to << bytes;
    }
    if (!from || !to) return Error(Code::kNotFound, "no " + fetch.path);
    return Answer{};
  }
  Result<Answer> serve(uint32_t slot, const Counted& counted) {
    fs::create_directories(memory(slot) + "/counted/" + counted.checkpoint);
    return Answer{};
  }
  Result<Answer> serve(uint32_t slot, const Drop& drop) {
    fs::remove_all(memory(slot) + "/own/" + drop.checkpoint);
    fs::remove_all(memory(slot) + "/counted/" + drop.checkpoint);
    if (slots_ > 1) fs::remove_all(copy_at(slot, drop.checkpoint));
    return Answer{};
  }
  Result<Answer> serve(uint32_t, const Saved&) { return Answer{}; }
  Result<Answer> serve(uint32_t, const Evidence& said) {
    evidence.push_back(said.kind + ": " + said.message);
    return Answer{};
  }

  const std::string root_;
  uint32_t slots_ = 0, running_ = 0;
  std::mutex mutex_;
  std::atomic<bool> fail_pushes_{false};
  std::vector<std::unique_ptr<Client>> clients_;

 public:
  int fetches = 0;
};

class MemoryTier : public ::testing::Test {
 protected:
  Epoch epoch(uint32_t ranks) {
    launchers.start(ranks);
    Epoch epoch{.ranks = ranks, .number = ++number_};
    epoch.checkpoint.memory_steps = 1;
    epoch.checkpoint.memory_copies = 1;
    epoch.memory = [this](uint32_t rank) { return launchers.memory(rank); };
    epoch.launcher = [this](uint32_t rank) { return launchers.client(rank); };
    return epoch;
  }
  void save(const Epoch& epoch, uint64_t from, uint64_t to) {
    ASSERT_TRUE(run_epoch(epoch, [&](RankView rank) {
      const auto restored = rank.checkpointer.restore({});
      ASSERT_TRUE(restored) << restored.error().message;
      ASSERT_EQ(rank.checkpointer.memory_off_reason(), "");
      save_steps(rank, from, to, {.memory = true});
      ASSERT_TRUE(rank.checkpointer.finish(Step(to), Json::object()));  // waits until the older one has given way
    }));
  }
  Restored restored_at(const Epoch& epoch, uint64_t step) {
    Restored seen;
    EXPECT_TRUE(run_epoch(epoch, [&](RankView rank) {
      const auto restored = rank.checkpointer.restore({});
      ASSERT_TRUE(restored) << restored.error().message;
      ASSERT_TRUE(restored->has_value());
      EXPECT_EQ((*restored)->step, Step(step));
      EXPECT_TRUE(rank.state.holds(step));
      if (rank.rank == 0) seen = **restored;
    }));
    return seen;
  }
  void flip_own(uint32_t slot) {
    for (const auto& entry : fs::recursive_directory_iterator(launchers.memory(slot) + "/own")) {
      if (entry.path().extension() != ".safetensors") continue;
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(100'000);
      file.put('x').put('y');
    }
  }

  TemporaryFolder folder;
  Launchers launchers{folder.path()};
  uint64_t number_ = 0;
};

TEST_F(MemoryTier, a_lost_nodes_slice_comes_from_its_peer) {
  save(epoch(3), 1, 3);
  fs::remove_all(launchers.memory(1));
  const Restored restored = restored_at(epoch(3), 3);
  EXPECT_EQ(restored.source, page::Source::kPeerMemory);
  EXPECT_TRUE(restored.damaged.empty());
}

TEST_F(MemoryTier, two_neighbours_lost_at_once_are_too_many_for_one_copy) {
  save(epoch(3), 1, 3);
  fs::remove_all(launchers.memory(1));
  fs::remove_all(launchers.memory(2));
  ASSERT_TRUE(run_epoch(epoch(3), [&](RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error().code, Code::kDataLoss);
    EXPECT_THAT(restored.error().message,
                ::testing::HasSubstr("shard-00001-of-00003.safetensors is in nobody's memory"));
  }));
}

TEST_F(MemoryTier, a_slice_damaged_in_own_memory_comes_from_the_peer_and_the_launcher_hears_of_it) {
  save(epoch(2), 1, 2);
  flip_own(0);
  const Restored restored = restored_at(epoch(2), 2);
  EXPECT_EQ(restored.source, page::Source::kPeerMemory);
  ASSERT_EQ(restored.damaged.size(), 1u);
  EXPECT_THAT(restored.damaged[0], ::testing::HasSubstr("(memory): "));
  ASSERT_EQ(launchers.evidence.size(), 1u);
  EXPECT_THAT(launchers.evidence[0], ::testing::HasSubstr("digest: step-000000000002-c1 (memory)"));
}

TEST_F(MemoryTier, a_replica_outside_the_epoch_is_asked_through_the_launcher) {
  save(epoch(3), 1, 2);
  Epoch smaller = epoch(2);
  launchers.start(2, 3);
  fs::remove_all(launchers.memory(0) + "/peer");  // the third replica's copy: only its own launcher has it now
  EXPECT_EQ(restored_at(smaller, 2).source, page::Source::kPeerMemory);
  EXPECT_GT(launchers.fetches, 0);
}

TEST_F(MemoryTier, a_push_that_fails_leaves_the_checkpoint_before_it_counting) {
  const Epoch made = epoch(2);
  std::vector<SaveOutcome> outcomes;
  ASSERT_TRUE(run_epoch(made, [&](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    save_steps(rank, 1, 1, {.memory = true});
    launchers.fail_pushes(true);
    std::vector<SaveOutcome> mine;
    save_steps(rank, 2, 2, {.memory = true}, &mine);
    if (rank.rank == 0) outcomes = mine;
  }));
  launchers.fail_pushes(false);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].result, SaveOutcome::Result::kFailed);
  EXPECT_THAT(outcomes[0].message, ::testing::HasSubstr("peer 1 can't be reached"));
  restored_at(epoch(2), 1);
}

TEST_F(MemoryTier, only_the_newest_that_counts_stays_in_own_and_in_peers_memory) {
  save(epoch(3), 1, 5);
  save(epoch(3), 6, 7);
  for (uint32_t slot = 0; slot < 3; ++slot) {
    const auto count = [&](const std::string& below) {
      return std::distance(fs::directory_iterator(launchers.memory(slot) + below), fs::directory_iterator());
    };
    EXPECT_EQ(count("/own"), 1) << slot;
    EXPECT_EQ(count("/counted"), 1) << slot;
    EXPECT_EQ(count("/peer/" + std::to_string((slot + 2) % 3)), 1) << slot;
  }
  restored_at(epoch(3), 7);
}

TEST_F(MemoryTier, a_world_of_another_size_goes_on_from_memory) {
  save(epoch(4), 1, 2);
  launchers.start(2, 4);
  Epoch two = epoch(2);
  launchers.start(2, 4);
  restored_at(two, 2);
}

TEST_F(MemoryTier, without_room_it_is_off_and_says_how_many_bytes_it_needs) {
  Epoch made = epoch(1);
  made.launcher = {};
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* old = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status ran = run_epoch(made, [](RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    const uint64_t three_shards = 3 * (4096 + rank.state.total());
    EXPECT_THAT(rank.checkpointer.memory_off_reason(),
                ::testing::HasSubstr("need " + std::to_string(three_shards) + " bytes"));
    EXPECT_FALSE(rank.checkpointer.due(Step(1)).memory);
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old);
  ASSERT_TRUE(ran);
}

}  // namespace
}  // namespace pitcrew::trainer
