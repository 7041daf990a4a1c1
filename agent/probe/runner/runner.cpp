#include "agent/probe/runner/runner.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

namespace pitcrew::agent {

struct ProbeRunner::Worker {
  Worker(ProbeTask t, std::function<void()> e) : task(std::move(t)), ended(std::move(e)) {}

  const ProbeTask task;
  const std::function<void()> ended;
  std::thread thread;

  // Of the runner's thread alone.
  Instant due;
  Instant started;
  bool late = false;  // reported already

  std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;
  bool busy = false;
  std::optional<Instant> asked;
  std::optional<Result<std::vector<Observation>>> result;

  // Runs on the worker's thread; `self` keeps it alive where the runner has left it behind.
  static void work(const std::shared_ptr<Worker>& self) {
    std::unique_lock lock(self->mutex);
    while (true) {
      self->changed.wait(lock, [&] { return self->stop || self->asked; });
      if (self->stop) return;
      const Instant now = *self->asked;
      self->asked.reset();
      lock.unlock();
      auto result = self->task.look(now);
      lock.lock();
      self->result = std::move(result);
      self->busy = false;
      self->changed.notify_all();
      if (!self->ended || self->stop) continue;
      lock.unlock();
      self->ended();
      lock.lock();
    }
  }
};

namespace {

Observation report(const ProbeTask& task, bool ok, const std::string& text, Duration took, Instant now) {
  Observation observation;
  observation.kind = kinds::kProbe;
  observation.values = {{"probe", task.name}, {"ok", ok ? 1.0 : 0.0}, {"seconds", to_seconds(took)}};
  observation.text = text;
  observation.time = now;
  return observation;
}

}  // namespace

ProbeRunner::ProbeRunner(std::vector<ProbeTask> tasks, std::function<void()> ended) {
  for (ProbeTask& task : tasks) {
    auto worker = std::make_shared<Worker>(std::move(task), ended);
    worker->thread = std::thread([worker] { Worker::work(worker); });
    workers_.push_back(std::move(worker));
  }
}

ProbeRunner::~ProbeRunner() {
  for (const auto& worker : workers_) {
    bool stuck = false;
    {
      const std::lock_guard lock(worker->mutex);
      worker->stop = true;
      stuck = worker->busy && worker->late;
    }
    worker->changed.notify_all();
    if (stuck) {
      worker->thread.detach();
    } else {
      worker->thread.join();
    }
  }
}

std::vector<Observation> ProbeRunner::poll(Instant now) {
  std::vector<Observation> out;
  for (const auto& worker : workers_) {
    const ProbeTask& task = worker->task;
    std::unique_lock lock(worker->mutex);
    if (worker->result) {
      Result<std::vector<Observation>> result = std::move(*worker->result);
      worker->result.reset();
      lock.unlock();
      const Duration took = now - worker->started;
      if (result.ok()) {
        for (Observation& observation : *result) out.push_back(std::move(observation));
        out.push_back(report(task, true, "", took, now));
      } else {
        out.push_back(report(task, false, task.name + ": " + result.error().message, took, now));
      }
      worker->late = false;
      lock.lock();
    }
    if (worker->busy) {
      if (!worker->late && now - worker->started > task.limit) {
        worker->late = true;
        out.push_back(
            report(task, false, task.name + ": no answer within " + pitcrew::to_string(task.limit), task.limit, now));
      }
      continue;
    }
    if (now < worker->due) continue;
    worker->due = now + task.every;
    worker->started = now;
    worker->busy = true;
    worker->asked = now;
    lock.unlock();
    worker->changed.notify_all();
  }
  return out;
}

Instant ProbeRunner::next(Instant now) const {
  Instant next = now + hours(1);
  for (const auto& worker : workers_) {
    const std::lock_guard lock(worker->mutex);
    if (worker->busy && worker->ended) {
      // Its end is told; until then there is only its limit to look after.
      if (!worker->late) next = std::min(next, worker->started + worker->task.limit + milliseconds(1));
    } else {
      // A look that is under way is asked about soon, so that its result does not lie around.
      next = std::min(next, worker->busy ? now + milliseconds(100) : worker->due);
    }
  }
  return std::max(next, now);
}

bool ProbeRunner::settle(Duration limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  bool quiet = true;
  for (const auto& worker : workers_) {
    std::unique_lock lock(worker->mutex);
    quiet = worker->changed.wait_until(lock, until, [&] { return !worker->busy; }) && quiet;
  }
  return quiet;
}

}  // namespace pitcrew::agent
