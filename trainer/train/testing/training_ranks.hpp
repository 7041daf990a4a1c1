#pragma once

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "trainer/comm/memory_comm.hpp"
#include "trainer/train/testing/tiny_training.hpp"
#include "trainer/train/trainer.hpp"

namespace pitcrew::trainer {

// A rank's communicators: training, checkpoints, and whatever a test needs beside.
using Channels = std::vector<std::unique_ptr<Comm>>;

// What a test does to the ranks.
struct TrainingHooks {
  uint64_t stop_in = 0;    // every rank is asked to stop in this step; 0: never
  std::string fault = {};  // PITCREW_TEST_FAULT
  // Called on the rank's thread in every step.
  std::function<void(uint32_t rank, uint64_t step, Channels& channels)> each_step = {};
  // Called before the rank trains, to change what it is given.
  std::function<void(RankEnvironment&, TrainerServices&, Channels&)> given = {};
};

// Ranks as threads of one process that train together, each as a process of a managed job would.
class TrainingRanks : public TinyTraining {
 protected:
  struct World {
    std::vector<Outcome> outcomes;
    std::string printed;  // by rank 0
  };
  using Hooks = TrainingHooks;

  static std::vector<Channels> memory_channels(uint32_t ranks, uint32_t count = 2) {
    std::vector<Channels> all(ranks);
    for (uint32_t channel = 0; channel < count; ++channel) {
      MemoryGroup group(ranks);
      for (uint32_t rank = 0; rank < ranks; ++rank) all[rank].push_back(group.take(rank));
    }
    return all;
  }

  // An epoch of its own; ends when all ranks have. A rank's communicators go when it ends, as a process' do.
  World train_ranks(const TrainConfig& config, std::vector<Channels> channels, const Hooks& hooks = {}) {
    ++epoch_;
    const auto ranks = static_cast<uint32_t>(channels.size());
    World world;
    world.outcomes.resize(ranks);
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        Channels own = std::move(channels[rank]);
        world.outcomes[rank] = train_rank(config, rank, ranks, own, hooks, world);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return world;
  }

  Outcome train_rank(const TrainConfig& config, uint32_t rank, uint32_t ranks, Channels& channels, const Hooks& hooks,
                     World& world) {
    RankEnvironment environment;
    environment.rank = rank;
    environment.size = ranks;
    environment.slot = Slot(rank);
    environment.managed = true;
    environment.job = {"uid-1", "team", "job", Term(1)};
    environment.epoch = EpochNumber(epoch_);
    auto planted = PlantedFault::read(
        [&](const char* variable) {
          return std::string_view(variable) == "PITCREW_TEST_FAULT" && !hooks.fault.empty() ? hooks.fault.c_str()
                                                                                            : nullptr;
        },
        rank);
    EXPECT_TRUE(planted.ok()) << planted.error().message;
    page::Writer page;
    const RealClock clock;
    uint64_t asked = 0;
    TrainerServices services;
    services.training = channels[0].get();
    services.checkpoints = ranks > 1 ? channels[1].get() : nullptr;
    services.page = &page;
    services.clock = &clock;
    services.files = &posix_file_system();
    services.stop_asked = [&] {
      ++asked;
      if (hooks.each_step) hooks.each_step(rank, asked, channels);
      return asked == hooks.stop_in;
    };
    services.print = [&](const std::string& line) { world.printed += line + "\n"; };
    services.fault = *planted ? &**planted : nullptr;
    if (hooks.given) hooks.given(environment, services, channels);
    return train(config, environment, services);
  }

  static void expect_done(const World& world) {
    for (const Outcome& outcome : world.outcomes) EXPECT_EQ(outcome.message, "") << world.printed;
  }

  // The step log in a folder of checkpoints, without epochs and times, which differ between runs.
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

  uint64_t epoch_ = 0;
};

}  // namespace pitcrew::trainer
