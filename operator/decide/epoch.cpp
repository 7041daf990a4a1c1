#include "operator/decide/epoch.hpp"

#include <algorithm>

#include "lib/base/random.hpp"
#include "operator/decide/replay.hpp"
#include "operator/decide/resume.hpp"

namespace pitcrew::control {

uint32_t epoch_port(const std::string& job_uid, EpochNumber number, uint32_t first, uint32_t last) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const unsigned char c : job_uid) hash = (hash ^ c) * 0x100000001b3ull;
  const uint64_t range = last - first + 1;
  // One further with each epoch, in steps that share no factor with the usual ranges.
  return first + static_cast<uint32_t>((mix64(hash) % range + number.value * 7919) % range);
}

void commit_epoch(Situation& situation) {
  api::TrainingJobStatus& status = situation.status;
  const auto resume = propose_resume(situation);

  EpochId above{std::max(situation.in.term, status.epoch.term), status.epoch.number};
  for (const LauncherView& view : situation.in.launchers) {
    above.term = std::max(above.term, view.seen.term);
    above.number = std::max(above.number, view.seen.number);
  }

  api::EpochStatus epoch;
  epoch.number = above.number.next();
  epoch.term = above.term;
  epoch.port = epoch_port(situation.job.metadata.uid, epoch.number, situation.in.port_first, situation.in.port_last);
  epoch.committed = situation.now;
  epoch.replay = carried_replay(situation);
  if (resume) {
    epoch.resume_step = resume->step;
    epoch.resume_place = std::string(to_string(resume->place));
    epoch.resume_claim = resume->claim;
  }

  std::vector<api::SlotStatus> table;
  for (uint32_t slot = 0; slot < situation.spec.replicas; ++slot) {
    const auto member = situation.member_of(Slot(slot));
    PITCREW_INVARIANT(member && member->connected(), "an epoch was about to be committed without its whole gang");
    api::SlotStatus row;
    row.slot = Slot(slot);
    row.serial = member->record->serial;
    row.pod_uid = member->pod->metadata.uid;
    row.node = member->pod->node_name;
    row.address = member->launcher->address;
    row.first_rank = Rank(slot * situation.in.shape.processes);
    table.push_back(std::move(row));
  }
  status.epoch = std::move(epoch);
  status.slots = std::move(table);
  situation.clear_mark(mark::kInterrupted);
  situation.clear_mark(mark::kGang);
  situation.clear_mark(mark::kNotBefore);
  if (!status.start_time) status.start_time = situation.now;
  if (!status.recoveries.empty() && !status.recoveries.front().ready) {
    status.recoveries.front().ready = situation.now;
    status.recoveries.front().epoch = status.epoch.number.value;
  }
}

api::channel::Epoch epoch_message(const Situation& situation) {
  const api::TrainingJobStatus& status = situation.stored;
  const api::TrainingJobSpec& spec = situation.spec;
  api::channel::Epoch message;
  message.id = {status.epoch.term, status.epoch.number};
  message.job = {situation.job.metadata.uid, situation.job.metadata.ns, situation.job.metadata.name, status.epoch.term};
  message.world_size = spec.replicas * situation.in.shape.processes;
  for (const api::SlotStatus& slot : status.slots) {
    api::channel::TableEntry entry;
    entry.slot = slot.slot;
    entry.pod_name = api::pod_name(situation.job, slot.serial);
    entry.node = slot.node;
    entry.address = slot.address;
    entry.first_rank = slot.first_rank;
    entry.ranks = situation.in.shape.processes;
    if (const LauncherView* view = situation.launcher(slot.pod_uid)) {
      entry.address = view->address;
      entry.peer_port = view->peer_port;
    }
    message.table.push_back(std::move(entry));
  }
  if (!message.table.empty()) message.master_address = message.table.front().address;
  message.master_port = status.epoch.port;
  if (status.epoch.resume_step) {
    const Place place = status.epoch.resume_place == to_string(Place::kMemory) ? Place::kMemory : Place::kDurable;
    message.resume = ResumePoint{*status.epoch.resume_step, status.epoch.resume_claim, place};
    message.resume_hint =
        "step " + std::to_string(status.epoch.resume_step->value) + " from " + status.epoch.resume_place;
  }
  message.replay = replay_point(situation);
  if (spec.checkpoint) {
    message.checkpoint.path = spec.checkpoint->path;
    message.checkpoint.keep = spec.checkpoint->keep;
    if (spec.checkpoint->every) {
      message.checkpoint.every_steps = spec.checkpoint->every->steps;
      message.checkpoint.every_time = spec.checkpoint->every->time;
      message.checkpoint.every_auto = spec.checkpoint->every->automatic;
    }
    if (spec.checkpoint->memory) {
      message.checkpoint.memory_steps = spec.checkpoint->memory->every_steps;
      message.checkpoint.memory_copies = std::min(spec.checkpoint->memory->copies, spec.replicas - 1);
    }
  }
  message.stall_after = spec.monitoring.stall_after;
  message.start_within = spec.monitoring.start_within;
  message.slow_below = spec.monitoring.slow_below;
  return message;
}

}  // namespace pitcrew::control
