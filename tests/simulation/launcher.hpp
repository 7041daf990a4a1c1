#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/api/channel.hpp"
#include "lib/base/delayed.hpp"
#include "lib/local/node/container_runtime.hpp"
#include "operator/channel/memory_channel.hpp"
#include "tests/simulation/training.hpp"

namespace pitcrew::simulation {

// What survives a launcher in its pod: the run folder and the memory folder.
struct PodMemory {
  EpochId seen;
  std::vector<ResumePoint> held;
  uint32_t boots = 0;
};

// What a launcher needs of its world.
struct LauncherWorld {
  Loop& loop;
  Random& random;
  // Where to connect to now; null: nobody answers.
  std::function<control::MemoryChannelServer*(const std::string& node)> server;
  std::function<std::string(const local::ContainerSpec& spec)> token;
  std::function<std::string(const local::ContainerSpec& spec)> job_uid;
  // The ranks of an epoch; null where the epoch may not be started (told as a broken invariant).
  std::function<Gang*(const api::channel::Epoch& epoch)> gang;
  std::function<void(const SimLauncher& launcher, const api::channel::ToLauncher& message)> accepted;
  std::function<void(const SimLauncher& launcher, int exit_code)> exit;
  std::function<void(const std::string& line)> trace;
  bool quiet = false;
};

// A launcher as the operator knows it: a model of pitcrew-launcher that speaks its messages and keeps its rules (an
// epoch lower than one that it has seen is refused; exits are told again after a reconnect). One run of one container;
// lives on the loop.
class SimLauncher {
 public:
  SimLauncher(LauncherWorld& world, local::ContainerSpec spec, std::string node, PodMemory& memory);
  ~SimLauncher();
  SimLauncher(const SimLauncher&) = delete;

  // The process or its node ends: with a FIN, or silently.
  void die(bool silently);
  void signaled();
  // The connection is cut (or, for an operator that stands still, given up); it connects again when it finds somebody.
  void cut();
  void give_up();

  void say(const api::channel::FromLauncher& message);
  void rank_ended(const api::channel::Exited& exit);
  void hold(ResumePoint point);

  const local::ContainerSpec& spec() const { return spec_; }
  const std::string& node() const { return node_; }
  const std::string& job_uid() const { return job_uid_; }
  std::optional<Slot> slot() const { return slot_; }
  EpochId seen() const { return memory_.seen; }
  Gang* gang() const { return gang_; }
  control::MemoryChannelServer* server() const { return conn_ ? server_ : nullptr; }
  // It has said hello since its process started.
  bool greeted() const { return greeted_; }
  std::optional<Instant> connection_lost() const { return connection_lost_; }

 private:
  void connect_later(Duration delay);
  void connect();
  void received(const std::string& text);
  void take_epoch(const api::channel::Epoch& epoch);
  void stop(const api::channel::Stop& stop);
  void leave(const std::string& why, bool silently);

  LauncherWorld& world_;
  local::ContainerSpec spec_;
  std::string node_;
  std::string job_uid_;
  PodMemory& memory_;
  std::string boot_;
  control::MemoryChannelServer* server_ = nullptr;
  std::unique_ptr<control::MemoryChannelServer::Connection> conn_;
  std::optional<Slot> slot_;
  Gang* gang_ = nullptr;
  bool running_ = false;
  bool dead_ = false;
  bool greeted_ = false;
  std::optional<Instant> connection_lost_;
  std::vector<api::channel::Exited> exits_;  // of the epoch, told again after a reconnect
  Loop::TimerPtr connect_timer_;
  Delayed delayed_;
};

}  // namespace pitcrew::simulation
