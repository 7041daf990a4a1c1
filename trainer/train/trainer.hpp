#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/clock.hpp"
#include "lib/base/file.hpp"
#include "lib/base/log.hpp"
#include "lib/base/progress_page.hpp"
#include "trainer/checkpoint/checkpointer.hpp"
#include "trainer/comm/comm.hpp"
#include "trainer/comm/flight_recorder.hpp"
#include "trainer/comm/nccl/nccl_comm.hpp"
#include "trainer/parallel/mesh_comms.hpp"
#include "trainer/train/config.hpp"
#include "trainer/train/lane_engine.hpp"
#include "trainer/train/planted_fault.hpp"
#include "trainer/train/rank_environment.hpp"

namespace pitcrew::trainer {

// What a rank's training stands on; all outlive it.
struct TrainerServices {
  Comm* training = nullptr;                       // required, also for one rank
  Comm* checkpoints = nullptr;                    // connections of its own, for checkpoint traffic
  MeshCommFactory mesh;                           // required where the configuration has shards or tensor ranks
  PeerWatch* watch = nullptr;                     // for NCCL: says who is gone; null: nobody does
  LauncherClient* launcher = nullptr;             // null: none
  page::Writer* page = nullptr;                   // required
  const Clock* clock = nullptr;                   // required
  FileSystem* files = nullptr;                    // required
  std::function<bool()> stop_asked;               // SIGTERM has come
  std::function<void(const std::string&)> print;  // rank 0's lines for people
  Logger log;
  CpuDeviceOptions device;                     // its threads are the configuration's
  PlantedFault* fault = nullptr;               // for tests, on a CPU
  FlightRecorder* recorder = nullptr;          // of the training collectives
  std::shared_ptr<const nccl::Api> host_nccl;  // for tests: one that moves the host's memory
};

// How training ended. Where a peer was lost, the rank has stopped talking and waits to be told what to do: its
// caller's.
struct Outcome {
  int exit_code = 0;
  std::string message;  // why, where the code isn't 0
  std::optional<Rank> lost_peer;
};

// Trains one rank from the newest checkpoint, or from the beginning, to the last step or until it is told to stop.
// Blocks; the calling thread is the training thread. Every rank of the epoch calls it with the same configuration.
Outcome train(const TrainConfig& config, const RankEnvironment& environment, TrainerServices services);

}  // namespace pitcrew::trainer
