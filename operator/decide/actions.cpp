#include "operator/decide/actions.hpp"

#include <unordered_set>

#include "operator/decide/epoch.hpp"
#include "operator/decide/planned_stop.hpp"

namespace pitcrew::control {
namespace {

using namespace api::channel;

void create_and_delete(const Situation& situation, Plan& plan) {
  std::unordered_set<Serial> reserved;
  for (const api::PodRecord& record : situation.stored.pods) {
    reserved.insert(record.serial);
    if (situation.pod(record.serial) == nullptr) plan.creates.push_back({record.serial, record.slot, record.node});
  }
  for (const PodView& view : situation.in.pods) {
    if (reserved.contains(view.serial) || view.pod->deleting()) continue;
    const kube::Node* node = situation.node(view.pod->node_name);
    DeletePod gone{view.pod->metadata.name, view.pod->metadata.uid, "its serial is not reserved", false};
    if (situation.stored.phase == api::Phase::kSuspended) gone.reason = "the job is suspended";
    if (situation.stored.phase == api::Phase::kPending) gone.reason = "its gang was released";
    if (!situation.stored.recoveries.empty() && !situation.stored.slots.empty())
      gone.reason = "its place is taken by another pod";
    gone.force = node == nullptr && !view.pod->node_name.empty();
    plan.deletes.push_back(std::move(gone));
  }
}

void tell_epoch(const Situation& situation, Plan& plan) {
  // Only to a whole gang: nobody starts before every slot is bound and connected.
  for (const api::SlotStatus& row : situation.stored.slots) {
    const auto member = situation.member_of(row.slot);
    if (!member || !member->connected() || member->pod->metadata.uid != row.pod_uid) return;
  }
  const EpochId id = situation.epoch();
  std::optional<Epoch> message;  // the same for all but for the slot
  for (const api::PodRecord& record : situation.stored.pods) {
    const Member member = situation.member(record);
    if (!member.connected() || member.launcher->seen >= id || member.launcher->sent_epoch >= id) continue;
    if (!message) message = epoch_message(situation);
    message->slot = record.slot;
    plan.messages.push_back({member.pod->metadata.name, member.pod->metadata.uid, *message});
  }
}

void tell_stop(const Situation& situation, Plan& plan, const Stop& stop) {
  for (const api::PodRecord& record : situation.stored.pods) {
    const Member member = situation.member(record);
    if (!member.connected() || !member.launcher->running || member.launcher->seen > stop.epoch) continue;
    const auto& sent = member.launcher->sent_stop;
    if (sent && sent->epoch == stop.epoch && sent->save == stop.save) continue;
    plan.messages.push_back({member.pod->metadata.name, member.pod->metadata.uid, stop});
  }
}

}  // namespace

void act_on_stored(Situation& situation, Plan& plan) {
  plan.create_budget = !situation.in.has_budget && !situation.stored.pods.empty();
  create_and_delete(situation, plan);
  if (situation.stored.slots.empty()) return;
  if (situation.stored.marks.contains(mark::kInterrupted)) {
    const std::string why =
        situation.stored.recoveries.empty() ? "the epoch is over" : situation.stored.recoveries.front().evidence;
    return tell_stop(situation, plan, {situation.epoch(), false, Duration{0}, why.substr(0, 256)});
  }
  if (const auto stop = planned_stop(situation)) {
    return tell_stop(situation, plan, {situation.epoch(), true, stop->grace, stop->reason});
  }
  tell_epoch(situation, plan);
}

}  // namespace pitcrew::control
