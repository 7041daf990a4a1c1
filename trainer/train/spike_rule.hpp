#pragma once

#include <deque>
#include <limits>
#include <string>

#include "lib/base/json.hpp"

namespace pitcrew::trainer {

// What makes a finite loss or gradient norm one that can't be right. 0 turns a rule off.
struct SpikeSettings {
  double loss = 3;     // times the median of the recent losses, and worse than guessing (the vocabulary's logarithm)
  double norm = 1000;  // times the median of the recent norms
};

// Knows the losses and norms of the last steps. Pure; owned by the training thread. Its state belongs into checkpoints,
// so that a resumed run judges as one that never stopped.
class SpikeRule {
 public:
  static constexpr size_t kWindow = 32;  // steps
  static constexpr size_t kFewest = 8;   // steps before anything is judged

  SpikeRule(SpikeSettings settings, uint64_t vocabulary);

  // The highest that is still believed; infinity: everything.
  double loss_limit() const;
  double norm_limit() const;
  // A step was done.
  void add(double loss, double norm);

  Json state() const;
  // kInvalidArgument for what state() did not make; the rule then starts anew.
  Status restore(const Json& state);

 private:
  const SpikeSettings settings_;
  const double guessing_;
  std::deque<double> losses_, norms_;
};

}  // namespace pitcrew::trainer
