#pragma once

// For tests: ranks as threads of one process, each with a small state, a communicator and a checkpointer.

#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "lib/base/file.hpp"
#include "lib/base/random.hpp"
#include "trainer/checkpoint/checkpointer.hpp"
#include "trainer/comm/memory_comm.hpp"

namespace pitcrew::trainer::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "pitcrew-checkpoint-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string at(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Tensors of several types and sizes, over and under a chunk, whose contents are a function of a number.
class ToyState {
 public:
  ToyState() : ToyState(3 * 262144 + 77) {}
  explicit ToyState(uint64_t embedding) {
    add("embedding", DType::kF32, {embedding});
    add("norm", DType::kF32, {100});
    add("mixer.weight", DType::kF64, {3, 65537});
    add("half", DType::kBF16, {7});
    add("nothing", DType::kF32, {0, 4});
    add("steps", DType::kU64, {});
  }

  const std::vector<StateTensor>& tensors() const { return tensors_; }
  void fill(uint64_t number) {
    for (size_t t = 0; t < tensors_.size(); ++t) {
      const StateTensor& tensor = tensors_[t];
      std::vector<std::byte> whole(held_elements(tensor.shape, {}) * size_of(tensor.dtype));
      Random random(number * 1000 + t);
      for (uint64_t at = 0; at < whole.size(); at += 8) {
        const uint64_t word = random();
        std::memcpy(whole.data() + at, &word, std::min<uint64_t>(8, whole.size() - at));
      }
      const uint64_t width = size_of(tensor.dtype);
      for_each_run(tensor.shape, tensor.cut, 0, tensor.elements(), [&](const CutRun& run) {
        std::memcpy(bytes_[t].data() + run.held * width, whole.data() + run.whole * width, run.count * width);
      });
    }
  }
  // From now on tensors() are what one of so many tensor ranks holds: of one tensor rows in three groups, of one
  // columns, and all of the others.
  void cut(TensorPlace place) {
    if (place.size == 1) return;
    const uint64_t rows = tensors_[0].shape[0];
    tensors_[0].cut = {0, {rows / 2, rows / 3, rows - rows / 2 - rows / 3}, place.size, place.rank};
    tensors_[2].cut = {1, {tensors_[2].shape[1]}, place.size, place.rank};
    for (size_t t = 0; t < tensors_.size(); ++t) {
      bytes_[t].resize(tensors_[t].bytes());
      tensors_[t].data = bytes_[t].data();
    }
  }
  // From now on tensors() are what shard `shard` of so many holds: of each tensor one run of its elements.
  void divide(uint32_t shard, uint32_t shards) {
    for (size_t t = 0; t < tensors_.size(); ++t) {
      StateTensor& tensor = tensors_[t];
      tensor.first = tensor.elements() * shard / shards;
      tensor.count = tensor.elements() * (shard + 1) / shards - tensor.first;
      tensor.data = bytes_[t].data() + tensor.first * size_of(tensor.dtype);
    }
  }
  // Of what tensors() are.
  bool holds(uint64_t number) const {
    ToyState other(tensors_[0].shape[0]);
    for (size_t t = 0; t < tensors_.size(); ++t) {
      other.tensors_[t].cut = tensors_[t].cut;
      other.bytes_[t].resize(other.tensors_[t].bytes());
    }
    other.fill(number);
    for (size_t t = 0; t < tensors_.size(); ++t) {
      const StateTensor& tensor = tensors_[t];
      const std::byte* wanted = other.bytes_[t].data() + tensor.first * size_of(tensor.dtype);
      if (tensor.bytes() > 0 && std::memcmp(tensor.data, wanted, tensor.bytes()) != 0) return false;
    }
    return true;
  }
  uint64_t total() const {
    uint64_t sum = 0;
    for (const auto& bytes : bytes_) sum += bytes.size();
    return sum;
  }

 private:
  void add(std::string name, DType dtype, std::vector<uint64_t> shape) {
    StateTensor tensor{std::move(name), dtype, std::move(shape), nullptr};
    bytes_.emplace_back(tensor.bytes());
    tensor.data = bytes_.back().data();
    tensors_.push_back(std::move(tensor));
    for (size_t t = 0; t < tensors_.size(); ++t) tensors_[t].data = bytes_[t].data();
  }
  std::vector<StateTensor> tensors_;
  std::vector<std::vector<std::byte>> bytes_;
};

// What every rank of an epoch is given; `each` may change the settings of one.
struct Epoch {
  uint32_t ranks = 1;
  uint32_t shards = 1;
  uint32_t tensor = 1;
  uint64_t number = 1;
  std::string job = "job-1";
  CheckpointSettings checkpoint;
  RunDescription run{"config-1", "dataset-1", Json{{"threads", 1}}};
  FileSystem* files = nullptr;
  Duration beat_every = hours(1);
  bool poison = true;
  uint64_t embedding = 3 * 262144 + 77;
  std::function<std::string(uint32_t rank)> memory;  // PITCREW_MEMORY of each rank
  std::function<LauncherClient*(uint32_t rank)> launcher;
  std::function<std::unique_ptr<Copier>()> copier;
  Logger log;
};

struct RankView {
  uint32_t rank;
  ToyState& state;
  Checkpointer& checkpointer;
};

// Runs `body` on every rank; what open() said, of rank 0, if it failed.
inline Status run_epoch(const Epoch& epoch, const std::function<void(RankView)>& body) {
  MemoryGroup group(epoch.ranks);
  ManualClock clock;
  std::vector<Status> opened(epoch.ranks);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < epoch.ranks; ++rank) {
    threads.emplace_back([&, rank, comm = std::shared_ptr<Comm>(group.take(rank))] {
      ToyState state(epoch.embedding);
      const uint32_t parts = epoch.shards * epoch.tensor;
      state.cut({rank % epoch.tensor, epoch.tensor});
      state.divide(rank / epoch.tensor % epoch.shards, epoch.shards);
      const std::unique_ptr<Copier> copier = epoch.copier ? epoch.copier() : std::make_unique<ThreadCopier>();
      CheckpointerSettings settings{.checkpoint = epoch.checkpoint,
                                    .job = {.uid = epoch.job, .ns = "test", .name = epoch.job},
                                    .epoch = EpochNumber(epoch.number),
                                    .slot = Slot(rank),
                                    .holders = Holders{rank / parts, epoch.ranks / parts},
                                    .memory_folder = epoch.memory ? epoch.memory(rank) : "",
                                    .beat_every = epoch.beat_every,
                                    .poison_released = epoch.poison};
      CheckpointerServices services{.files = epoch.files,
                                    .clock = &clock,
                                    .pause = [&clock](Duration time) { clock.advance(time); },
                                    .comm = comm.get(),
                                    .launcher = epoch.launcher ? epoch.launcher(rank) : nullptr,
                                    .copier = copier.get(),
                                    .log = epoch.log};
      auto checkpointer = Checkpointer::open(settings, services, state.tensors(), epoch.run);
      if (!checkpointer) {
        opened[rank] = checkpointer.error();
        return;
      }
      body({rank, state, **checkpointer});
    });
  }
  for (auto& thread : threads) thread.join();
  return opened[0];
}

// Trains from wherever it is: each step fills the state with its number; saved as `kinds` says, then finished or
// dropped.
inline void save_steps(const RankView& rank, uint64_t from, uint64_t to, SaveKinds kinds,
                       std::vector<SaveOutcome>* outcomes = nullptr) {
  for (uint64_t step = from; step <= to; ++step) {
    rank.checkpointer.hold_mutation();
    rank.state.fill(step);
    rank.checkpointer.begin(Step(step), Json{{"next", step + 1}}, kinds);
    // Waits for the save, without asking for another one: this is a test of what is saved, not of how fast.
    std::vector<SaveOutcome> got;
    while (got.size() < size_t{kinds.durable} + size_t{kinds.memory}) {
      for (auto& outcome : rank.checkpointer.poll()) got.push_back(std::move(outcome));
      std::this_thread::yield();
    }
    if (outcomes != nullptr) outcomes->insert(outcomes->end(), got.begin(), got.end());
  }
}

}  // namespace pitcrew::trainer::testing
