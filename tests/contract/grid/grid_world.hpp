#pragma once

#include <fstream>
#include <map>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "tests/contract/comm/comm_world.hpp"
#include "trainer/train/testing/tiny_training.hpp"
#include "trainer/train/trainer.hpp"

namespace pitcrew::trainer {

// Of the grids that are only about bits; under the thread sanitizer larger ones take minutes and share their code.
#ifdef __SANITIZE_THREAD__
inline constexpr uint32_t kMostRanks = 4;
#else
inline constexpr uint32_t kMostRanks = 8;
#endif

enum class Backend { kMemory, kTcp };

// A rank's communicators: training, checkpoints, and one for each kind of the mesh's traffic.
using Channels = std::vector<std::unique_ptr<Comm>>;
inline constexpr uint32_t kChannels = 2 + kMeshTraffics;

// Ranks as threads that train in a grid.
class GridTraining : public TinyTraining {
 protected:
  struct World {
    std::vector<Outcome> outcomes;
    std::string printed;  // by rank 0
  };
  struct Options {
    uint32_t ranks = 1;
    GridSettings grid;
    Backend backend = Backend::kMemory;
    uint64_t stop_in = 0;    // every rank is asked to stop in this step
    std::string fault = "";  // PITCREW_TEST_FAULT
    // Called on the rank's thread in every step, with its channels.
    std::function<void(uint32_t rank, uint64_t step, Channels&)> each_step;
  };

  World run(TrainConfig config, const std::string& checkpoints, const Options& options) {
    config.checkpoint.path = folder_ + "/" + checkpoints;
    config.parallel = options.grid;
    ++epoch_;
    std::vector<Channels> all = connect(options);
    World world;
    world.outcomes.resize(options.ranks);
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < options.ranks; ++rank)
      threads.emplace_back([&, rank] { world.outcomes[rank] = train_rank(config, options, rank, all[rank], world); });
    for (std::thread& thread : threads) thread.join();
    return world;
  }
  void expect_done(const World& world) {
    for (const Outcome& outcome : world.outcomes) EXPECT_EQ(outcome.message, "") << world.printed;
  }

  // Ranks as processes over TCP; `dies` ends without a word in step `in_step`. Whom each of the others lost, by rank.
  std::vector<std::optional<Rank>> lose(const TrainConfig& config, const Options& options, uint32_t dies,
                                        uint64_t in_step) {
    const uint16_t port = free_port();
    int told[2], released[2];
    EXPECT_EQ(pipe(told) + pipe(released), 0);
    std::vector<pid_t> processes;
    for (uint32_t rank = 0; rank < options.ranks; ++rank) {
      processes.push_back(fork());
      if (processes.back() != 0) continue;
      close(released[1]);
      Channels channels = connect(rank, options.ranks, port);
      Options own = options;
      own.each_step = [&](uint32_t, uint64_t step, Channels&) {
        if (rank == dies && step == in_step) _exit(1);
      };
      World world;
      const Outcome outcome = train_rank(config, own, rank, channels, world);
      const uint64_t word[] = {rank, outcome.lost_peer ? outcome.lost_peer->value : ~uint64_t{0}};
      // It stays until all have seen the first cause, as a rank under a launcher does.
      char byte = 0;
      const bool wrote = write(told[1], word, sizeof word) == sizeof word && read(released[0], &byte, 1) == 0;
      _exit(wrote ? 0 : 1);
    }
    std::vector<std::optional<Rank>> lost(options.ranks);
    for (uint32_t i = 0; i + 1 < options.ranks; ++i) {
      uint64_t word[2] = {};
      if (read(told[0], word, sizeof word) != sizeof word) break;
      if (word[1] != ~uint64_t{0}) lost[word[0]] = Rank(static_cast<uint32_t>(word[1]));
    }
    close(released[1]);
    for (const pid_t process : processes) waitpid(process, nullptr, 0);
    for (const int end : {told[0], told[1], released[0]}) close(end);
    return lost;
  }

  // What a run leaves: the newest checkpoint's tensors.
  std::map<std::string, std::vector<std::byte>> state(const std::string& checkpoints) const {
    const auto loaded = load_tensors(posix_file_system(), folder_ + "/" + checkpoints);
    EXPECT_TRUE(loaded) << loaded.error().message;
    std::map<std::string, std::vector<std::byte>> tensors;
    if (!loaded) return tensors;
    for (const LoadedTensor& tensor : loaded->tensors) tensors[tensor.tensor.name] = tensor.bytes;
    return tensors;
  }
  // The step log without epochs and times, which differ between runs.
  std::string log(const std::string& checkpoints) const {
    std::ifstream file(folder_ + "/" + checkpoints + "/steps.jsonl");
    std::string all;
    for (std::string line; std::getline(file, line);) {
      const size_t from = line.find(",\"epoch\":"), to = line.find(",\"samples\"");
      const size_t times = std::min(line.find(",\"seconds\":"), line.size() - 1);
      all += line.substr(0, from) + line.substr(to, times - to) + "}\n";
    }
    return all;
  }

 private:
  static Channels connect(uint32_t rank, uint32_t ranks, uint16_t port) {
    TcpSettings settings;
    settings.rank = rank;
    settings.size = ranks;
    settings.master_port = port;
    auto made = TcpComm::connect(settings, kChannels);
    PITCREW_INVARIANT(made.ok(), made.ok() ? "" : made.error().message);
    Channels channels;
    for (auto& comm : *made) channels.push_back(std::move(comm));
    return channels;
  }
  std::vector<Channels> connect(const Options& options) {
    std::vector<Channels> all(options.ranks);
    if (options.backend == Backend::kMemory) {
      for (uint32_t channel = 0; channel < kChannels; ++channel) {
        MemoryGroup group(options.ranks);
        for (uint32_t rank = 0; rank < options.ranks; ++rank) all[rank].push_back(group.take(rank));
      }
      return all;
    }
    const uint16_t port = free_port();
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < options.ranks; ++rank)
      threads.emplace_back([&, rank] { all[rank] = connect(rank, options.ranks, port); });
    for (std::thread& thread : threads) thread.join();
    return all;
  }

  Outcome train_rank(const TrainConfig& config, const Options& options, uint32_t rank, Channels& channels,
                     World& world) {
    RankEnvironment environment;
    environment.rank = rank;
    environment.size = options.ranks;
    environment.slot = Slot(rank);
    environment.managed = true;
    environment.job = {"uid-1", "team", "job", Term(1)};
    environment.epoch = EpochNumber(epoch_);
    page::Writer page;
    const RealClock clock;
    uint64_t asked = 0;
    TrainerServices services;
    services.training = channels[0].get();
    services.checkpoints = options.ranks > 1 ? channels[1].get() : nullptr;
    services.mesh = groups_over({channels[2].get(), channels[3].get(), channels[4].get(), channels[5].get()});
    services.page = &page;
    services.clock = &clock;
    services.files = &posix_file_system();
    services.stop_asked = [&] {
      ++asked;
      if (options.each_step) options.each_step(rank, asked, channels);
      return asked == options.stop_in;
    };
    services.print = [&](const std::string& line) { world.printed += line + "\n"; };
    const auto planted = PlantedFault::read(
        [&](const char* variable) {
          return std::string_view(variable) == "PITCREW_TEST_FAULT" && !options.fault.empty() ? options.fault.c_str()
                                                                                              : nullptr;
        },
        rank);
    EXPECT_TRUE(planted.ok());
    std::optional<PlantedFault> fault = *planted;
    services.fault = fault ? &*fault : nullptr;
    return train(config, environment, services);
  }

  uint64_t epoch_ = 0;
};

}  // namespace pitcrew::trainer
