#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/api/channel.hpp"
#include "lib/base/delayed.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"

namespace pitcrew::simulation {

// How a simulated training program behaves.
struct Program {
  Duration step_time = seconds(1);
  uint64_t total_steps = 3000;
  uint64_t durable_every = 200;
  uint64_t memory_every = 20;
  std::optional<uint64_t> fails_at_step;  // always, with the same exception: its own fault
  uint32_t failing_slot = 0;
  bool peers_exit = false;  // ranks that lose a peer exit with an exception instead of waiting
};

class SimLauncher;

// The ranks of one epoch of one job, over all its pods: a training that advances while all of them are there, and
// stands still from the moment one isn't. Steps cost nothing: they are computed from the time. Lives on the loop; owned
// by the model.
class Gang {
 public:
  Gang(Loop& loop, Random random, const Program& program, const api::channel::Epoch& epoch);

  void join(Slot slot, SimLauncher* launcher);
  // The member's ranks have been stopped by its launcher, or are gone with it; `silently` when nobody gets a FIN.
  void leave(Slot slot, const std::string& why, bool silently);
  // A rank ends by itself.
  void rank_exits(Slot slot, api::channel::ExitKind kind, int code, std::string exception);
  // One rank stops inside a step; its launcher judges so after the stall limit.
  void hang(Slot slot, Duration limit);
  // The other members' launchers can't reach this one's, or can again; its ranks train on.
  void unreachable(Slot slot, bool again);
  void tell(const SimLauncher& member) const;  // its state once more, after a reconnect

  bool training() const;
  bool broken() const { return broken_at_.has_value(); }
  bool finished() const { return done_; }
  Step step() const;
  bool advanced_within(Duration d) const { return training() && to_seconds(d) > to_seconds(program_.step_time); }
  EpochId id() const { return epoch_.id; }
  size_t members() const { return members_.size(); }
  // Nothing more is reported: the world is being watched for quiet.
  void fall_quiet() { quiet_ = true; }

 private:
  void start();
  void train();
  void tick();
  void note_checkpoints();
  void finish();
  void stop_at_now(std::optional<Slot> lost);
  void report_loss(Slot lost);
  void report_stall(std::optional<Slot> culprit, Duration limit);
  api::channel::Progress progress(Slot slot) const;
  api::channel::Stalled stall_of(Slot slot) const;

  Loop& loop_;
  Random random_;
  const Program& program_;
  api::channel::Epoch epoch_;
  std::map<Slot, SimLauncher*> members_;
  std::map<Slot, bool> exited_;
  uint64_t resumed_ = 0;
  std::string phase_ = "starting";
  std::optional<Instant> training_since_;
  std::optional<Instant> broken_at_;
  std::optional<Rank> lost_;
  std::optional<Duration> stalled_for_;
  std::optional<Slot> culprit_;  // of the stall
  uint64_t told_durable_ = 0;
  uint64_t told_memory_ = 0;
  bool done_ = false;
  bool quiet_ = false;
  Delayed delayed_;
};

}  // namespace pitcrew::simulation
