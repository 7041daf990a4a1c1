#include "tests/simulation/training.hpp"

#include <algorithm>

#include "tests/simulation/launcher.hpp"

namespace pitcrew::simulation {
namespace {

using namespace api::channel;

constexpr Duration kReportEvery = seconds(10);
constexpr Duration kPeersNotice = seconds(1);

}  // namespace

Gang::Gang(Loop& loop, Random random, const Program& program, const Epoch& epoch)
    : loop_(loop), random_(random), program_(program), epoch_(epoch), delayed_(loop) {
  if (epoch.resume) resumed_ = epoch.resume->step.value;
  told_durable_ = resumed_ / program_.durable_every * program_.durable_every;
  told_memory_ = resumed_ / program_.memory_every * program_.memory_every;
}

void Gang::join(Slot slot, SimLauncher* launcher) {
  members_[slot] = launcher;
  launcher->say(progress(slot));
  if (members_.size() == epoch_.table.size() && !training_since_ && !broken_at_) start();
}

void Gang::start() {
  phase_ = "restoring";
  delayed_.after(milliseconds(1500 + random_.below(3000)), [this] {
    if (broken_at_) return;
    phase_ = "first step";
    delayed_.after(milliseconds(500 + random_.below(1000)), [this] { train(); });
  });
}

void Gang::train() {
  if (broken_at_) return;
  phase_ = "training";
  training_since_ = loop_.now();
  tick();
  const auto at_step = [&](uint64_t step) {
    return program_.step_time * static_cast<int64_t>(step > resumed_ ? step - resumed_ : 1);
  };
  if (program_.fails_at_step && *program_.fails_at_step < program_.total_steps) {
    delayed_.after(at_step(*program_.fails_at_step), [this] {
      if (!broken_at_)
        rank_exits(Slot(program_.failing_slot), ExitKind::kExited, 1, "ValueError: sample 17 has no label");
    });
  }
  delayed_.after(at_step(program_.total_steps), [this] {
    if (!broken_at_) finish();
  });
}

bool Gang::training() const { return training_since_ && !broken_at_ && !done_; }

Step Gang::step() const {
  if (!training_since_) return Step(resumed_);
  const Instant until = broken_at_.value_or(loop_.now());
  const uint64_t steps = static_cast<uint64_t>((until - *training_since_) / program_.step_time);
  return Step(std::min(program_.total_steps, resumed_ + 1 + steps));
}

Progress Gang::progress(Slot slot) const {
  Progress progress;
  progress.epoch = epoch_.id;
  progress.step = step();
  progress.samples = progress.step.value * 8;
  progress.phase = lost_ ? "lost peer" : phase_;
  progress.tokens_per_second = 1000;
  progress.total_steps = program_.total_steps;
  if (slot == Slot(0)) {
    progress.loss = 4.0 / (1 + 0.001 * static_cast<double>(progress.step.value));
    if (told_durable_ > 0) progress.durable_step = Step(told_durable_);
    if (told_memory_ > 0) progress.memory_step = Step(told_memory_);
    if (training_since_) {
      if (epoch_.resume) progress.resumed_step = epoch_.resume->step;
      progress.resumed_source = epoch_.resume ? "own memory" : "none";
    }
  }
  progress.lost_peer = lost_.has_value();
  progress.lost_rank = lost_;
  return progress;
}

void Gang::note_checkpoints() {
  const uint64_t step = this->step().value;
  const uint64_t memory = step / program_.memory_every * program_.memory_every;
  if (memory > told_memory_) {
    told_memory_ = memory;
    for (const auto& [slot, launcher] : members_)
      launcher->hold({Step(memory), epoch_.id.number.value, Place::kMemory});
  }
  const uint64_t durable = step / program_.durable_every * program_.durable_every;
  if (durable > told_durable_) {
    told_durable_ = durable;
    const auto first = members_.find(Slot(0));
    if (first != members_.end()) {
      first->second->say(
          Saved{epoch_.id, Step(durable), true,
                "/checkpoints/step-" + std::to_string(durable) + "-c" + std::to_string(epoch_.id.number.value),
                1'000'000, ""});
    }
  }
}

void Gang::tick() {
  if (broken_at_ || done_ || quiet_) return;
  note_checkpoints();
  for (const auto& [slot, launcher] : members_) launcher->say(progress(slot));
  delayed_.after(kReportEvery, [this] { tick(); });
}

void Gang::tell(const SimLauncher& member) const {
  for (const auto& [slot, launcher] : members_) {
    if (launcher != &member) continue;
    launcher->say(progress(slot));
    if (stalled_for_) launcher->say(stall_of(slot));
  }
}

Stalled Gang::stall_of(Slot slot) const {
  Stalled stalled{epoch_.id, step(), "training", to_seconds(*stalled_for_), to_seconds(*stalled_for_), {}, ""};
  stalled.ranks.push_back({Rank(slot.value), culprit_ == slot ? 16u : 17u, culprit_ != slot});
  return stalled;
}

void Gang::finish() {
  if (quiet_) return;
  note_checkpoints();
  done_ = true;
  phase_ = "done";
  for (const auto& [slot, launcher] : members_) {
    launcher->say(progress(slot));
    Exited exit;
    exit.epoch = epoch_.id;
    exit.rank = Rank(slot.value);
    exit.reason = "exit code 0";
    exit.step = step();
    exit.done = true;
    launcher->rank_ended(exit);
  }
}

void Gang::stop_at_now(std::optional<Slot> lost) {
  if (broken_at_ || done_) return;
  note_checkpoints();
  broken_at_ = loop_.now();
  if (!lost) return;
  delayed_.after(kPeersNotice, [this, lost = *lost] { report_loss(lost); });
}

void Gang::report_loss(Slot lost) {
  lost_ = Rank(lost.value);
  for (const auto& [slot, launcher] : members_) {
    if (slot == lost) continue;
    if (program_.peers_exit && training_since_) {
      Exited exit;
      exit.epoch = epoch_.id;
      exit.rank = Rank(slot.value);
      exit.code = 1;
      exit.exception = "ConnectionResetError";
      exit.reason = "exit code 1: ConnectionResetError";
      exit.step = step();
      launcher->rank_ended(exit);
    } else {
      launcher->say(progress(slot));
    }
  }
}

void Gang::leave(Slot slot, const std::string& why, bool silently) {
  members_.erase(slot);
  if (done_ || quiet_) return;
  const bool first = !broken_at_;
  // Without a FIN it may be that the ranks wait for one that is gone, and only the launchers miss one another.
  const bool unnoticed = silently && random_.chance(0.5);
  stop_at_now(why == "stopped" || unnoticed ? std::nullopt : std::optional<Slot>(slot));
  if (!silently || !first) return;
  delayed_.after(seconds(4), [this, slot] { unreachable(slot, false); });
  if (unnoticed) report_stall(std::nullopt, seconds(30));
}

void Gang::rank_exits(Slot slot, ExitKind kind, int code, std::string exception) {
  const auto member = members_.find(slot);
  if (member == members_.end() || done_) return;
  stop_at_now(slot);
  Exited exit;
  exit.epoch = epoch_.id;
  exit.rank = Rank(slot.value);
  exit.kind = kind;
  exit.code = code;
  exit.reason = (kind == ExitKind::kSignaled ? "killed by signal " : "exit code ") + std::to_string(code) +
                (exception.empty() ? "" : ": " + exception);
  exit.exception = std::move(exception);
  exit.step = step();
  member->second->rank_ended(exit);
}

void Gang::unreachable(Slot lost, bool again) {
  for (const auto& [slot, launcher] : members_) {
    if (slot != lost) launcher->say(Unreachable{epoch_.id, lost, again ? 0.0 : 5.0});
  }
}

void Gang::hang(Slot culprit, Duration limit) {
  if (!training()) return;
  stop_at_now(std::nullopt);
  report_stall(culprit, limit);
}

void Gang::report_stall(std::optional<Slot> culprit, Duration limit) {
  delayed_.after(limit, [this, culprit, limit] {
    stalled_for_ = limit;
    culprit_ = culprit;
    for (const auto& [slot, launcher] : members_) launcher->say(stall_of(slot));
  });
}

}  // namespace pitcrew::simulation
