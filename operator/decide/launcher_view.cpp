#include "operator/decide/launcher_view.hpp"

#include <algorithm>
#include <charconv>
#include <tuple>

namespace pitcrew::control {
namespace {

using namespace api::channel;

bool before_training(const std::string& phase) {
  return phase.empty() || phase == page::to_string(page::Phase::kStarting) ||
         phase == page::to_string(page::Phase::kRestoring);
}

bool step_done(const std::string& phase) {
  return phase == page::to_string(page::Phase::kTraining) || phase == page::to_string(page::Phase::kEvaluating) ||
         phase == page::to_string(page::Phase::kSaving) || phase == page::to_string(page::Phase::kDone) ||
         phase == kWithoutPage;
}

}  // namespace

uint64_t claim_of_path(std::string_view path) {
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  const size_t mark = path.rfind("-c");
  if (mark == std::string_view::npos) return 0;
  uint64_t claim = 0;
  const auto [end, error] = std::from_chars(path.data() + mark + 2, path.data() + path.size(), claim);
  return error == std::errc() && end == path.data() + path.size() ? claim : 0;
}

void LauncherView::move_to(EpochId epoch) {
  seen = epoch;
  progress.reset();
  advanced.reset();
  pace = kAssumedPace;
  restored.reset();
  training.reset();
  exited.clear();
  stalled.reset();
  unreachable.clear();
  stopped.reset();
  aborted.reset();
  evidence.clear();
}

bool LauncherView::hold(ResumePoint point) {
  for (ResumePoint& known : held) {
    if (known.step != point.step) continue;
    if (known.claim >= point.claim) return false;
    known.claim = point.claim;
    return true;
  }
  held.push_back(point);
  std::sort(held.begin(), held.end(), [](const ResumePoint& a, const ResumePoint& b) {
    return std::tie(a.claim, a.step) > std::tie(b.claim, b.step);
  });
  if (held.size() > kHeld) held.resize(kHeld);
  return true;
}

bool LauncherView::hello(const Hello& hello, Instant now) {
  const bool reborn = boot != hello.boot;
  pod_name = hello.pod_name;
  pod_uid = hello.pod_uid;
  job_uid = hello.job_uid;
  node = hello.node;
  address = hello.address;
  peer_port = hello.peer_port;
  gpus = hello.gpus;
  if (reborn) {
    boot = hello.boot;
    booted = now;
    ++boots;
    move_to(hello.seen);
    durable.reset();
    memory.reset();
  } else if (hello.seen > seen) {
    move_to(hello.seen);
  }
  connected = true;
  since = now;
  silent_since.reset();
  closed = false;
  running = hello.running;
  held.clear();
  for (const ResumePoint& point : hello.held) hold(point);
  sent_epoch = {};
  sent_stop.reset();
  sent_finish = false;
  sent_requests.clear();
  return true;
}

bool LauncherView::receive(const FromLauncher& message, Instant now) {
  if (const auto* said = std::get_if<Hello>(&message)) return hello(*said, now);

  if (const auto* said = std::get_if<Progress>(&message)) {
    if (said->epoch < seen) return false;
    bool changed = follow(said->epoch);
    running = true;
    if (!progress || said->step > progress->message.step) {
      if (!advanced) changed = true;
      // The first report of a connection tells how long the connection was away, not how long a step takes.
      if (advanced && *advanced >= since) pace = std::max(now - *advanced, pace * 3 / 4);
      advanced = now;
    }
    if (!restored && !before_training(said->phase)) restored = now, changed = true;
    if (!training && step_done(said->phase)) training = now, changed = true;
    if (!progress || progress->message.phase != said->phase || progress->message.lost_peer != said->lost_peer ||
        progress->message.resumed_source != said->resumed_source ||
        progress->message.durable_step != said->durable_step) {
      changed = true;
    }
    progress = Received<Progress>{now, *said};
    return changed;
  }
  if (const auto* said = std::get_if<Exited>(&message)) {
    if (said->epoch < seen) return false;
    follow(said->epoch);
    return exited.emplace(said->rank, Received<Exited>{now, *said}).second;
  }
  if (const auto* said = std::get_if<Stalled>(&message)) {
    if (said->epoch < seen) return false;
    follow(said->epoch);
    const bool first = !stalled;
    stalled = Received<Stalled>{first ? now : stalled->at, *said};
    return first;
  }
  if (const auto* said = std::get_if<Unreachable>(&message)) {
    if (said->epoch != seen) return false;
    if (said->seconds <= 0) return unreachable.erase(said->slot) > 0;
    const auto [entry, fresh] = unreachable.emplace(said->slot, Received<Unreachable>{now, *said});
    if (!fresh) entry->second.message = *said;
    return fresh;
  }
  if (const auto* said = std::get_if<Saved>(&message)) {
    if (!said->request.empty()) answers[said->request] = {now, said->path};
    if (said->epoch < seen) return !said->request.empty();
    (said->durable ? durable : memory) = Received<Saved>{now, *said};
    if (!said->durable) hold({said->step, claim_of_path(said->path), Place::kMemory});
    return said->durable || !said->request.empty();
  }
  if (const auto* said = std::get_if<Stopped>(&message)) {
    if (said->epoch < seen) return false;
    follow(said->epoch);
    stopped = Received<Stopped>{now, *said};
    running = false;
    return true;
  }
  if (const auto* said = std::get_if<Aborted>(&message)) {
    if (said->epoch < seen) return false;
    follow(said->epoch);
    aborted = Received<Aborted>{now, *said};
    running = false;
    return true;
  }
  if (const auto* said = std::get_if<Evidence>(&message)) {
    if (said->epoch != seen || evidence.size() >= kEvidence) return false;
    evidence.push_back({now, *said});
    return true;
  }
  const auto& said = std::get<Stacks>(message);
  answers[said.request] = {now, "in the log of pod " + pod_name};
  return true;
}

bool LauncherView::silent(Instant last_heard) {
  if (silent_since) return false;
  silent_since = last_heard;
  return true;
}

bool LauncherView::heard() {
  if (!silent_since || !connected) return false;
  silent_since.reset();
  return true;
}

bool LauncherView::disconnected(Instant last_heard, Instant now, bool fell_silent) {
  if (!connected) return false;
  connected = false;
  since = now;
  // A launcher with nothing to say may have been quiet for long before its connection ended: no reason to call it lost.
  closed = !fell_silent && !silent_since;
  if (!silent_since) silent_since = fell_silent ? std::max(last_heard, now - kPingTimeout) : now;
  return true;
}

void LauncherView::sent(const ToLauncher& message) {
  if (const auto* epoch = std::get_if<Epoch>(&message)) sent_epoch = epoch->id;
  if (const auto* stop = std::get_if<Stop>(&message)) sent_stop = *stop;
  if (const auto* save = std::get_if<Save>(&message)) sent_requests.push_back(save->request);
  if (const auto* diagnose = std::get_if<Diagnose>(&message)) sent_requests.push_back(diagnose->request);
  if (std::holds_alternative<Finish>(message)) sent_finish = true;
}

}  // namespace pitcrew::control
