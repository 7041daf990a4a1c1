#pragma once

#include <map>
#include <string>
#include <vector>

#include "operator/decide/decide.hpp"
#include "operator/decide/scenarios/command.hpp"

namespace pitcrew::control {

// The world of one scenario: a job, nodes, pods and launchers that do what the commands say, and a status that takes
// what decide() writes. Time stands still between commands, but for decide()'s own wakes.
class Stage {
 public:
  explicit Stage(Instant start);

  // Runs one command; the error is what isn't understood of it.
  Status run(const Command& command);
  // Moves on to `time`, deciding at every wake on the way, then decides until nothing is left to do; what happened, in
  // words.
  std::vector<std::string> advance(Instant time);
  std::vector<std::string> settle();

  Instant now() const { return now_; }

 private:
  // What the world does by itself is in stage.cpp, what commands do to it in stage_commands.cpp.
  struct PodState {
    std::shared_ptr<kube::Pod> pod;
    LauncherView launcher;
    bool known = false;  // its launcher has said hello to this leader
    uint32_t boots = 0;
    EpochId seen;
    bool running = false;
  };

  Status set_job(const Command& command);
  Status job_command(const Command& command);
  Status set_quota(const Command& command);
  Status node_command(const Command& command);
  Status health_command(const Command& command);
  Status pods_start(const Command& command);
  Status target_command(const Command& command);
  void hold_up(kube::Pod& pod, bool init, const Command& command) const;
  Status rank_exits(const Command& command);
  Status ranks_train(const Command& command);
  Status ranks_finish();
  Status leader_changes(const Command& command);
  PodState* target(const std::vector<std::string>& words, size_t& next);
  void say(PodState& state, const api::channel::FromLauncher& message) { state.launcher.receive(message, now_); }
  void hello(Serial serial, PodState& state, const Command& command);
  kube::Pod& change(PodState& state);
  kube::Node& node(const std::string& name);
  Snapshot snapshot() const;
  void apply(const Plan& plan);

  Instant now_;
  api::TrainingJob job_;
  std::map<std::string, kube::Node> nodes_;
  std::map<std::string, api::NodeHealth> health_;
  std::map<uint32_t, PodState> pods_;
  PodShape shape_;
  Term term_{1};
  Instant leading_since_;
  uint32_t other_nodes_ = 0;
  std::string refused_;     // what the API server says to every pod
  bool has_budget_ = true;  // scenarios that are not about it begin with it
  std::vector<std::shared_ptr<const kube::ResourceQuota>> quotas_;
  std::vector<SilentNode> other_silent_;
  uint64_t version_ = 1;
  std::optional<Instant> wake_;
  std::string waiting_;
};

}  // namespace pitcrew::control
