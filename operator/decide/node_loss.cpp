#include "operator/decide/node_loss.hpp"

#include <algorithm>

#include "operator/decide/decide.hpp"

namespace pitcrew::control {
namespace {

constexpr Duration kHerdWindow = seconds(2);
constexpr Duration kHerdWait = seconds(30);
constexpr size_t kHerdNodes = 3;
// The step advances where it grew within what a step takes and half as long again, reports being a second apart; at
// least within this time.
constexpr Duration kAdvancing = milliseconds(2500);
constexpr Duration kReportDelay = seconds(1);

// What a peer says that could come of this member's loss. Empty: nothing.
//
// A leader that never heard of the silent one can't tell what came first, and while others may still say hello, the
// silent one may too: then it must be peers that can't reach it.
std::string peers_sign(const Situation& situation, const Member& member, Instant silent_since) {
  const bool never_heard = member.launcher == nullptr;
  const Slot slot = *member.record->slot;
  const api::SlotStatus* row = nullptr;
  for (const api::SlotStatus& candidate : situation.stored.slots) {
    if (candidate.slot == slot) row = &candidate;
  }
  if (row == nullptr) return {};
  const uint32_t first = row->first_rank.value;
  const uint32_t last = first + situation.in.shape.processes;
  const auto of_slot = [&](const std::optional<Rank>& rank) {
    return rank && rank->value >= first && rank->value < last;
  };

  for (const api::SlotStatus& peer : situation.stored.slots) {
    if (peer.slot == slot) continue;
    const LauncherView* view = situation.launcher(peer.pod_uid);
    if (view == nullptr || view->seen != situation.epoch()) continue;
    const std::string who = "slot " + std::to_string(peer.slot.value);
    // Who is cut off itself is no witness.
    const bool heard = view->connected && !view->silent_since;
    if (heard && view->unreachable.contains(slot)) return who + " cannot reach it";
    if (never_heard && !situation.hello_grace_over()) continue;
    if (view->progress && view->progress->message.lost_peer && view->progress->at >= silent_since &&
        (!view->progress->message.lost_rank || of_slot(view->progress->message.lost_rank))) {
      return who + " lost it as a peer";
    }
    for (const auto& evidence : view->evidence) {
      if (evidence.at >= silent_since && of_slot(evidence.message.peer))
        return who + " reports " + evidence.message.kind;
    }
    // A rank may fail for reasons of its own: a sign beside a launcher that fell silent before it, not beside one that
    // has yet to say hello.
    for (const auto& [rank, exit] : view->exited) {
      if (!never_heard && exit.at >= silent_since && !exit.message.done)
        return "rank " + std::to_string(rank.value) + " of a peer failed after it";
    }
    if (!never_heard && view->stalled && view->stalled->at >= silent_since) return who + " stalled after it";
  }
  return {};
}

// Until when the other ranks count as doing steps: the last is no older than a step takes, and no rank has given up. A
// step takes all ranks, so the silent one's are among them. Nothing: they don't.
std::optional<Instant> advancing_until(const Situation& situation, Slot slot) {
  std::optional<Instant> until;
  for (const api::SlotStatus& peer : situation.stored.slots) {
    const LauncherView* view = situation.launcher(peer.pod_uid);
    if (view == nullptr || view->seen != situation.epoch()) continue;
    if (view->progress && view->progress->message.lost_peer) return std::nullopt;
    if (!view->exited.empty() || view->stalled) return std::nullopt;
    if (peer.slot == slot || !view->advanced || !view->training) continue;
    const Instant end = *view->advanced + std::max<Duration>(kAdvancing, view->pace * 3 / 2 + kReportDelay);
    if (situation.now < end) until = std::max(until.value_or(end), end);
  }
  return until;
}

}  // namespace

Herd judge_herd(uint32_t connected_nodes, const std::vector<SilentNode>& silent, Instant now) {
  // The widest group that fell silent within one window.
  std::vector<Instant> times;
  for (const SilentNode& node : silent) times.push_back(node.since);
  std::sort(times.begin(), times.end());
  Herd herd;
  const size_t all = connected_nodes + times.size();
  for (size_t first = 0, last = 0; first < times.size(); ++first) {
    last = std::max(last, first);
    while (last + 1 < times.size() && times[last + 1] - times[first] <= kHerdWindow) ++last;
    const size_t group = last - first + 1;
    if (group < kHerdNodes || group * 2 <= all) continue;
    const Instant until = times[last] + kHerdWait;
    if (now < until) {
      herd.waiting = true;
      herd.until = std::max(herd.until, until);
    }
  }
  return herd;
}

Duration silence_before_loss(const Member& member) {
  return member.launcher != nullptr && member.launcher->closed ? kSilenceAfterClose : kSilence;
}

NodeLossVerdict judge_node_loss(const Situation& situation, const Member& member) {
  NodeLossVerdict verdict;
  if (!member.bound() || !member.record->slot) return verdict;
  // To a fresh leader everybody is silent since it began to listen.
  const bool absent = member.launcher == nullptr;
  if (!absent && !member.launcher->silent_since) return verdict;
  const Instant since = absent ? situation.in.leading_since : *member.launcher->silent_since;
  verdict.happened = since;
  if (const Instant due = since + silence_before_loss(member); situation.now < due) {
    verdict.look_again = due;
    return verdict;
  }
  const Herd herd = judge_herd(situation.in.connected_nodes, situation.in.silent_nodes, situation.now);
  if (herd.waiting) {
    verdict.look_again = herd.until;
    return verdict;
  }
  const Slot slot = *member.record->slot;
  const bool running = situation.epoch_active();
  if (running) {
    verdict.look_again = advancing_until(situation, slot);
    if (verdict.look_again) return verdict;
  }
  if (member.node == nullptr) {
    verdict.second_sign = "its node is gone";
  } else if (!member.node->ready()) {
    verdict.second_sign = "its node is not ready";
  } else if (running) {
    verdict.second_sign = peers_sign(situation, member, since);
  }
  verdict.lost = !verdict.second_sign.empty();
  if (!verdict.lost) verdict.look_again = situation.now + kSilence;
  return verdict;
}

}  // namespace pitcrew::control
