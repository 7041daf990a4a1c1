#include "operator/decide/decide.hpp"

#include <algorithm>

#include "operator/decide/actions.hpp"
#include "operator/decide/drain.hpp"
#include "operator/decide/evidence.hpp"
#include "operator/decide/gang.hpp"
#include "operator/decide/ladder.hpp"
#include "operator/decide/node_fault.hpp"
#include "operator/decide/planned_stop.hpp"
#include "operator/decide/quiet.hpp"
#include "operator/decide/replay.hpp"
#include "operator/decide/requests.hpp"
#include "operator/decide/situation.hpp"
#include "operator/decide/spares.hpp"
#include "operator/decide/terminal.hpp"
#include "operator/decide/timeline.hpp"

namespace pitcrew::control {
namespace {

// Moves the new status on by everything that the snapshot shows.
void advance(Situation& situation) {
  situation.status.observed_generation = situation.job.metadata.generation;
  follow(situation);
  if (plan_stops(situation) || move_off_leaving_nodes(situation)) return;

  if (situation.epoch_active()) {
    settle_replay(situation);
    Judgement judgement = judge(situation);
    if (judgement.done) return succeed(situation);
    if (!judgement.verdict) judgement.verdict = restart_wanted(situation);
    blame_nodes(situation, judgement);
    if (!judgement.verdict) {
      keep_spares(situation);
      return;
    }
    recover(situation, judgement);
    if (api::terminal(situation.status.phase)) return;
  }
  if (situation.marked(mark::kInterrupted)) {
    fill_gang(situation);
  } else {
    assemble_gang(situation);
  }
  if (!api::terminal(situation.status.phase) && !situation.status.pods.empty()) keep_spares(situation);
}

// As fine as status keeps time: what is written reads back as it was decided.
using Tick = std::chrono::microseconds;

Plan decide_at(const Snapshot& snapshot, Instant now) {
  Plan plan;
  plan.resource_version = snapshot.job->metadata.resource_version;
  if (!snapshot.settled) {
    plan.waiting = "the caches do not show yet what was written last";
    return plan;
  }
  // The pods go with their owner.
  if (snapshot.job->metadata.deletion_time) return plan;

  Situation situation(snapshot, now);
  if (api::terminal(situation.stored.phase)) {
    after_the_end(situation, plan);
    plan.wake = situation.wake();
    return plan;
  }
  advance(situation);
  tell_refusal(situation);
  answer_requests(situation);
  plan.waiting = situation.waiting;

  if (worth_a_write(situation)) {
    account(situation);
    plan.status = std::move(situation.status);
    plan.events = std::move(situation.events);
    plan.wake = situation.wake();
    return plan;
  }
  act_on_stored(situation, plan);
  tell_requests(situation, plan);
  if (!plan.acts()) {
    if (quiet_write_due(situation)) {
      account(situation);
      plan.status = std::move(situation.status);
    }
  }
  plan.wake = situation.wake();
  return plan;
}

}  // namespace

Plan decide(const Snapshot& snapshot, Instant now) {
  Plan plan = decide_at(snapshot, Instant(std::chrono::floor<Tick>(now.since_epoch())));
  // Rounded up, or it would come a moment before what it waits for, again and again.
  if (plan.wake) plan.wake = Instant(std::chrono::ceil<Tick>(plan.wake->since_epoch()));
  return plan;
}

}  // namespace pitcrew::control
