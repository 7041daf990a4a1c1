#pragma once

#include "operator/decide/evidence.hpp"

namespace pitcrew::control {

// Which rung of the recovery ladder a failure takes: the lowest that helps and that isn't used up. `move` says that the
// failed slot must go elsewhere; whether a spare takes it or a new pod is found when the slot is filled.
struct RungChoice {
  bool move = false;
  api::Rung rung = api::Rung::kInPlace;  // where it stays
};
RungChoice choose_rung(const Situation& situation, const Verdict& verdict);

// The epoch is over: judges the program and the limits, writes the failure down, takes the pods that can't go on out of
// the gang, and marks the job interrupted (or failed). Filling the gang again and committing the next epoch follow in
// fill_gang().
void recover(Situation& situation, const Judgement& judgement);

// Raises the newest recovery's rung and its counter; a rung never goes down within one recovery.
void raise_rung(Situation& situation, api::Rung rung);

}  // namespace pitcrew::control
