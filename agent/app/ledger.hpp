#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/act/plan.hpp"
#include "agent/judge/judge.hpp"
#include "agent/judge/rates.hpp"

namespace pitcrew::agent {

// What an agent knows between two observations: the policy, judgement's history, what came and went, the GPUs' names,
// and the rates that the operator wants to hear of. Pure but for what it keeps: no clock, no I/O.
class Ledger {
 public:
  Ledger(api::HealthPolicy policy, std::string boot_id);

  // What was known before, of NodeHealth or the journal; once, before anything is judged. An error (a memory of another
  // version) leaves judgement without history.
  Status restore(const api::NodeHealthStatus& before);
  void set_policy(api::HealthPolicy policy) { policy_ = std::move(policy); }

  // Calls GPUs by their UUIDs where observations have a PCI address, and learns both from `gpu.identity`.
  void name(Observation& observation);

  struct Outcome {
    std::vector<Match> matches;
    bool changed = false;  // something that is kept or told is otherwise now
  };
  Outcome judge(const std::vector<Observation>& observations, Instant now);
  std::optional<Instant> wake() const { return wake_; }

  const std::vector<Verdict>& verdicts() const { return verdicts_; }
  // Since when the newest of the faults holds that only a deep check clears; nothing where none does.
  std::optional<Instant> waits_for_check() const;
  // All but `settled`, which is not the ledger's to say.
  Findings findings() const;

 private:
  void learn(const Observation& identity);

  api::HealthPolicy policy_;
  const std::string boot_id_;
  bool started_ = false;
  History history_;
  std::optional<Instant> wake_;
  std::vector<Verdict> verdicts_;
  std::vector<api::HealthEvent> events_;
  std::vector<api::GpuIdentity> gpus_;
  bool gpus_changed_ = false;
  RateWatch rates_;
};

}  // namespace pitcrew::agent
