#pragma once

#include <map>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "tests/contract/comm/nccl_world.hpp"
#include "trainer/train/testing/training_ranks.hpp"

namespace pitcrew::trainer {

// Of the grids that are only about bits; under the thread sanitizer larger ones take minutes and share their code.
#ifdef __SANITIZE_THREAD__
inline constexpr uint32_t kMostRanks = 4;
#else
inline constexpr uint32_t kMostRanks = 8;
#endif

enum class Backend { kMemory, kTcp, kNccl };
inline std::string to_string(Backend backend) {
  return backend == Backend::kMemory ? "Memory" : backend == Backend::kTcp ? "Tcp" : "Nccl";
}

// Training, checkpoints, and one for each kind of the mesh's traffic.
inline constexpr uint32_t kChannels = 2 + kMeshTraffics;

// The NCCL for tests. While its ranks meet they ask whether to go on: that is no step. The communicators of world rank
// 3 are known to the rules of faults as net 3/1, 3/2, ..., in the order in which it makes them.
class MeetingNccl {
 public:
  // For the rank of this thread.
  static std::shared_ptr<const nccl::Api> api(uint32_t rank) {
    static const auto real = *nccl::load(fake_nccl());
    rank_ = rank;
    made_ = 0;
    auto api = std::make_shared<nccl::Api>(*real);
    api->CommInitRankConfig = [](nccl::CommHandle* comm, int ranks, nccl::UniqueId id, int rank, nccl::Config* config) {
      meeting_ = true;
      const std::string net = std::to_string(rank_) + "/" + std::to_string(++made_);
      config->net_name = net.c_str();
      return real->CommInitRankConfig(comm, ranks, id, rank, config);
    };
    api->CommGetAsyncError = [](nccl::CommHandle comm, int* state) {
      const int told = real->CommGetAsyncError(comm, state);
      if (*state != nccl::kInProgress) meeting_ = false;
      return told;
    };
    return api;
  }
  // On this thread.
  static bool meeting() { return meeting_; }

 private:
  static inline thread_local bool meeting_ = false;
  static inline thread_local uint32_t rank_ = 0, made_ = 0;
};

// Ranks as threads that train in a grid.
class GridTraining : public TrainingRanks {
 protected:
  struct Options {
    uint32_t ranks = 1;
    GridSettings grid;
    Backend backend = Backend::kMemory;
    uint64_t stop_in = 0;    // every rank is asked to stop in this step
    std::string fault = "";  // PITCREW_TEST_FAULT
    // Called on the rank's thread in every step, with its channels.
    std::function<void(uint32_t rank, uint64_t step, Channels&)> each_step;
    // Called before the rank trains.
    std::function<void(RankEnvironment&, TrainerServices&)> given = {};
  };

  World run(TrainConfig config, const std::string& checkpoints, const Options& options) {
    config.checkpoint.path = folder_ + "/" + checkpoints;
    config.parallel = options.grid;
    std::vector<Channels> channels = connect(options);
    // As processes that wait for their launcher's word: who gave up still answers those who ask why.
    std::vector<std::unique_ptr<PeerWatch>> watches(options.ranks);
    for (uint32_t rank = 0; options.backend == Backend::kNccl && rank < options.ranks; ++rank) {
      auto* last = static_cast<TcpComm*>(channels[rank].back().release());
      channels[rank].pop_back();
      watches[rank] = std::make_unique<PeerWatch>(std::unique_ptr<TcpComm>(last), milliseconds(500));
    }
    Hooks hooks = hooks_of(options);
    hooks.given = [&, given = hooks.given](RankEnvironment& environment, TrainerServices& services, Channels& own) {
      given(environment, services, own);
      services.watch = watches[environment.rank].get();
    };
    return train_ranks(config, std::move(channels), hooks);
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
      const Outcome outcome = train_rank(config, rank, options.ranks, channels, hooks_of(own), world);
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

 private:
  static Channels connect(uint32_t rank, uint32_t ranks, uint16_t port, uint32_t count = kChannels) {
    TcpSettings settings;
    settings.rank = rank;
    settings.size = ranks;
    settings.master_port = port;
    auto made = TcpComm::connect(settings, count);
    PITCREW_INVARIANT(made.ok(), made.ok() ? "" : made.error().message);
    Channels channels;
    for (auto& comm : *made) channels.push_back(std::move(comm));
    return channels;
  }
  std::vector<Channels> connect(const Options& options) {
    if (options.backend == Backend::kMemory) return memory_channels(options.ranks, kChannels);
    std::vector<Channels> all(options.ranks);
    const uint32_t count = kChannels + (options.backend == Backend::kNccl ? 1 : 0);
    const uint16_t port = free_port();
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < options.ranks; ++rank)
      threads.emplace_back([&, rank] { all[rank] = connect(rank, options.ranks, port, count); });
    for (std::thread& thread : threads) thread.join();
    return all;
  }

  // The grid's communicators are the channels behind the first two.
  static Hooks hooks_of(const Options& options) {
    Hooks hooks;
    hooks.fault = options.fault;
    hooks.given = [&options](RankEnvironment& environment, TrainerServices& services, Channels& channels) {
      services.mesh = groups_over({channels[2].get(), channels[3].get(), channels[4].get(), channels[5].get()});
      services.stop_asked = [&options, &channels, rank = environment.rank, asked = uint64_t{0}]() mutable {
        if (MeetingNccl::meeting()) return false;
        ++asked;
        if (options.each_step) options.each_step(rank, asked, channels);
        return asked == options.stop_in;
      };
      if (options.backend == Backend::kNccl) {
        services.host_nccl = MeetingNccl::api(environment.rank);
        services.device.apart = true;
      }
      if (options.given) options.given(environment, services);
    };
    return hooks;
  }
};

}  // namespace pitcrew::trainer
