#include "operator/decide/spares.hpp"

#include <algorithm>

#include "operator/decide/decide.hpp"
#include "operator/decide/drain.hpp"
#include "operator/decide/fit.hpp"

namespace pitcrew::control {
namespace {

constexpr Duration kBetweenRounds = minutes(1);

bool useless(const Situation& situation, const Member& member) {
  if (member.pod_lost()) return true;
  // Whoever takes its node away waits for it, and it holds nothing.
  if (member.node != nullptr && !leaving(*member.node).empty()) return true;
  // Not bound yet, or its node is well: it may still come.
  if (member.node != nullptr && member.node->ready()) return false;
  if (member.pod == nullptr) return !member.record->node.empty();
  if (!member.bound()) return !member.record->node.empty();
  if (member.connected()) return false;
  const Instant silent = member.launcher != nullptr && member.launcher->silent_since ? *member.launcher->silent_since
                                                                                     : situation.in.leading_since;
  return situation.now >= silent + kSilence;
}

// One more for each slot that is about to move, so that it moves to a pod that is up.
uint32_t spares_wanted(const Situation& situation) {
  if (!situation.marked(mark::kDrain)) return situation.spec.spares;
  return std::max(situation.spec.spares, static_cast<uint32_t>(leaving_slots(situation).size()));
}

}  // namespace

std::optional<Serial> ready_spare(const Situation& situation, const std::string& except) {
  std::optional<Serial> best;
  for (const Member& spare : situation.spares()) {
    if (spare.node != nullptr && !except.empty() && spare.node->metadata.name == except) continue;
    if (!spare.connected() || spare.node == nullptr || !refusal(situation, *spare.node).empty()) continue;
    if (!best || spare.record->serial < *best) best = spare.record->serial;
  }
  return best;
}

void promote(Situation& situation, Serial spare, Slot slot) {
  for (api::PodRecord& record : situation.status.pods) {
    if (record.serial == spare) record.slot = slot;
  }
}

void reserve(Situation& situation, std::optional<Slot> slot, std::string node) {
  situation.status.pods.push_back({situation.status.next_serial, slot, std::move(node)});
  situation.status.next_serial = situation.status.next_serial.next();
}

void keep_spares(Situation& situation) {
  std::vector<Serial> gone;
  uint32_t there = 0;
  for (const Member& spare : situation.spares()) {
    if (useless(situation, spare)) {
      gone.push_back(spare.record->serial);
    } else {
      ++there;
    }
  }
  std::erase_if(situation.status.pods, [&](const api::PodRecord& record) {
    return std::find(gone.begin(), gone.end(), record.serial) != gone.end();
  });
  // More than wanted: the highest serials go.
  const uint32_t wanted = spares_wanted(situation);
  while (there > wanted) {
    const auto last = std::find_if(situation.status.pods.rbegin(), situation.status.pods.rend(),
                                   [](const api::PodRecord& record) { return !record.slot; });
    situation.status.pods.erase(std::next(last).base());
    --there;
  }
  if (there >= wanted) return;
  if (const auto last = situation.marked(mark::kSpare); last && situation.now < *last + kBetweenRounds) {
    situation.wake_at(*last + kBetweenRounds);
    return;
  }
  bool reserved = false;
  for (; there < wanted; ++there) {
    Fit place = fit(situation, 1);
    if (place.nodes.empty() && situation.spec.placement.capacity == api::CapacityMode::kProvision)
      place.nodes.emplace_back();
    if (place.nodes.empty()) break;
    reserve(situation, std::nullopt, std::move(place.nodes.front()));
    reserved = true;
  }
  if (reserved) situation.set_mark(mark::kSpare);
}

}  // namespace pitcrew::control
