#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/environment.hpp"
#include "lib/base/file.hpp"
#include "lib/base/launcher_socket.hpp"
#include "trainer/comm/comm.hpp"
#include "trainer/train/lane_engine.hpp"

namespace pitcrew::trainer {

// What a rank computed in a step, before it was added to what others did.
struct OwnResult {
  std::vector<double> losses;  // of its lanes
  uint64_t gradient = 0;       // LaneEngine::own_digest()
};

// A step whose loss or gradient can't be right. All ranks see the same; nothing was changed by it.
struct SuspectStep {
  Step step;
  bool spike = false;               // else: not finite
  std::string what;                 // for people: "step 42: the loss is not finite"
  std::span<const int32_t> tokens;  // of this rank's lanes
  OwnResult first;
  uint64_t first_sample = 0;  // of the step, and how many
  uint64_t samples = 0;
  uint64_t own_first_sample = 0;
  double gradient_norm = 0;                           // of all ranks' sum
  std::function<Result<double>()> reduce_again = {};  // adds what was computed again; the norm. Collective
  std::string loss_bits = {}, gradient_bits = {};     // for the run's memory where there is no launcher
};

// What came of looking into it: how this rank ends, and what it tells its launcher.
struct ReplayEnd {
  int exit_code = 0;
  std::string message;
  std::optional<Rank> blamed;  // another rank: this one is a witness and waits
  std::optional<launcher_socket::Evidence> evidence;
};

// Computes a suspect step again, from the state that it has left unchanged and with the same samples. Other bits on a
// rank: that machine is suspect (exit 76). The same bits everywhere: the rank whose part it was exits with 75 and says
// step and digest, so that it is tried on another node; there, told by PITCREW_REPLAY, the same digest ends training
// with 65 and names the samples. Without a launcher the second epoch that gives the same bits does.
//
// Owned and called by the training thread. Digests are comparable between ranks of the same part of the batch, the same
// configuration, data and kind of hardware: `basis` stands for these.
class StepReplay {
 public:
  struct Settings {
    Comm* comm = nullptr;
    LaneEngine* engine = nullptr;
    uint32_t micro = 1;
    uint32_t stride = 1;  // of this rank's lanes
    std::string basis;
    std::optional<ReplayPoint> replay;
    bool launcher = false;
    FileSystem* files = nullptr;
    std::string folder;  // of checkpoints; empty: nothing is remembered
  };
  explicit StepReplay(Settings settings) : settings_(std::move(settings)) {}

  // Whether `own` is what the first node computed for the step of PITCREW_REPLAY: true for its rank alone.
  bool same_as_first(Step step, const OwnResult& own) const;
  // The step of PITCREW_REPLAY is done on this rank, and nothing is wrong with it: what to tell the launcher.
  std::optional<launcher_socket::Evidence> passed(Step step, const OwnResult& own) const;
  // Collective. `confirmed`: some rank's result is the first node's. Errors as Comm's.
  Result<ReplayEnd> look_into(const SuspectStep& suspect, bool confirmed);

 private:
  enum class Against { kNothing, kSame, kOther, kIncomparable };  // the first node's digest

  std::string digest(const OwnResult& own) const;
  bool expected(Step step) const;
  Against compare(Step step, const OwnResult& own) const;
  Result<double> own_weight(const SuspectStep& suspect) const;
  Result<std::string> worst_samples(const SuspectStep& suspect);
  ReplayEnd accuse(const SuspectStep& suspect, Against against, const std::string& where);
  bool noted_before(const SuspectStep& suspect);

  const Settings settings_;
};

}  // namespace pitcrew::trainer
