#include "operator/app/reconciler.hpp"

#include <algorithm>

#include "operator/app/recovered.hpp"
#include "operator/decide/decide.hpp"
#include "operator/execute/pod_trim.hpp"

namespace pitcrew::control {
namespace {

// So many status writes of one job in a row, and so many a second from then on: far above what a decision needs, and a
// limit to one that would never come to rest.
constexpr double kWritesBurst = 40;
constexpr double kWritesPerSecond = 2;
// Between reconciles that events started, for each pod of the gang: when 512 launchers say hello one decision for each
// would cost more than all else. A gang of eight never notices.
constexpr Duration kPausePerPod = std::chrono::microseconds(100);
constexpr Duration kLongestPause = milliseconds(100);

kube::ControllerSettings controller_settings(const OperatorSettings& settings) {
  kube::ControllerSettings made;
  made.name = "trainingjob";
  made.workers = settings.workers;
  return made;
}

kube::EventRecorderSettings event_settings(const OperatorSettings& settings) {
  kube::EventRecorderSettings made;
  made.instance = settings.identity;
  return made;
}

kube::ClientSettings client_settings(const OperatorSettings& settings) {
  kube::ClientSettings made;
  made.rate = settings.requests_per_second;
  made.burst = settings.request_burst;
  return made;
}

// Only numbers that people watch differ: no phase, epoch, pod or record of what happened.
bool only_progress(const api::TrainingJobStatus& before, api::TrainingJobStatus after) {
  if (before.checkpoint.durable_step != after.checkpoint.durable_step) return false;
  after.progress = before.progress;
  after.goodput = before.goodput;
  after.checkpoint = before.checkpoint;
  return after == before;
}

}  // namespace

Reconciler::Reconciler(ReconcilerWorld world, const OperatorSettings& settings, const OperatorHooks& hooks, Term term,
                       std::function<bool()> may_act, Random random, Logger log)
    : world_(world),
      hooks_(hooks),
      term_(term),
      leading_since_(world.loop.now()),
      may_act_(std::move(may_act)),
      log_(log.with({{"term", term.value}})),
      channel_json_(api::channel::encode(world.channel.config())),
      channel_mark_(channel_mark(channel_json_)),
      client_(world.loop, world.transport, random(), client_settings(settings)),
      events_(world.loop, client_, random(), event_settings(settings), log_),
      expectations_(world.loop),
      executor_(client_, events_, expectations_,
                ExecutorSettings{{settings.launcher_image}, settings.create_batch_limit, settings.epoch_secret},
                ExecutorHooks{may_act_, [this](const ObjectKey& pod) { return world_.pods.store().get(pod); },
                              [this](const std::string& job_uid) { return world_.snapshots.has_budget(job_uid); },
                              [this](const std::string& pod_uid, const api::channel::ToLauncher& message) {
                                return world_.channel.send(pod_uid, message);
                              },
                              [this] { return channel_json_; },
                              [this](const std::string& job_uid, std::string why) {
                                world_.snapshots.pod_refused(job_uid, std::move(why));
                              }},
                log_),
      quiet_writes_(settings.quiet_writes_per_second, settings.quiet_writes_per_second),
      controller_(
          world.loop, controller_settings(settings),
          [this](const ObjectKey& key, Done done) { reconcile(key, std::move(done)); }, log_) {
  controller_.wait_for([this] {
    return world_.jobs.synced() && world_.pods.synced() && world_.nodes.synced() && world_.quotas.synced() &&
           world_.budgets.synced();
  });
}

void Reconciler::start() {
  controller_.start();
  enqueue_all(kube::priority::kInitial);
}

void Reconciler::stop(std::function<void()> done) {
  controller_.stop([this, done = std::move(done)] { events_.flush(seconds(2), done); });
}

void Reconciler::enqueue_all(int priority) {
  channel_json_ = api::channel::encode(world_.channel.config());
  channel_mark_ = channel_mark(channel_json_);
  world_.jobs.store().for_each([&](const JobPtr& job) { controller_.enqueue(job->metadata.key(), priority); });
}

void Reconciler::enqueue_event(const ObjectKey& key, int priority) {
  const auto began = began_.find(key);
  const JobPtr job = world_.jobs.store().get(key);
  if (began == began_.end() || !job) return controller_.enqueue(key, priority);
  const Duration pause = std::min<Duration>(kLongestPause, kPausePerPod * job->spec.replicas);
  const Duration passed = world_.loop.now() - began->second;
  if (passed >= pause) return controller_.enqueue(key, priority);
  controller_.enqueue_after(key, pause - passed, priority);
}

void Reconciler::enqueue_waiting() {
  for (const ObjectKey& key : waiting_) controller_.enqueue(key);
}

void Reconciler::pod_seen(const ObjectKey& job, const kube::Pod& pod, bool gone) {
  expectations_.observed(job, pod.metadata.name);
  if (gone || pod.deleting()) expectations_.observed(job, pod.metadata.uid);
  enqueue_event(job, gone || pod.ended() || pod.deleting() ? kube::priority::kUrgent : kube::priority::kNormal);
}

void Reconciler::budget_seen(const ObjectKey& job, const kube::DisruptionBudget& budget) {
  expectations_.observed(job, budget.metadata.name);
  controller_.enqueue(job);
}

void Reconciler::invalid(const kube::ObjectReference& job, const std::string& why) {
  events_.record(job, "Warning", "InvalidSpec", "Ignore", "the job can't be run until this is mended: " + why);
}

void Reconciler::job_gone(const api::TrainingJob& job) {
  forget(job.metadata.key());
  controller_.enqueue(job.metadata.key());
}

// What is under way may put it in again; the reconcile that comes after it forgets it for good.
void Reconciler::forget(const ObjectKey& key) {
  expectations_.forget(key);
  written_.erase(key);
  writes_.erase(key);
  began_.erase(key);
  waiting_.erase(key);
}

bool Reconciler::own_write(const api::TrainingJob& job) const {
  const auto written = written_.find(job.metadata.key());
  return written != written_.end() && written->second->metadata.uid == job.metadata.uid &&
         written->second->metadata.resource_version == job.metadata.resource_version;
}

size_t Reconciler::depth() const { return controller_.queue().depth() + controller_.queue().processing(); }

void Reconciler::fill(OperatorNumbers& numbers) const {
  const kube::WorkQueue& queue = controller_.queue();
  numbers.queued = queue.depth();
  numbers.waiting = queue.waiting();
  numbers.processing = queue.processing();
  numbers.longest_running = queue.longest_running();
  numbers.queue = queue.metrics();
  numbers.reconciles = controller_.metrics();
  numbers.requests = client_.metrics();
  numbers.events = events_.metrics();
  numbers.kept +=
      expectations_.owners() + written_.size() + writes_.size() + began_.size() + waiting_.size() + patched_.size();
}

void Reconciler::tell_recovered(const api::TrainingJobStatus& before, const api::TrainingJob& job) const {
  if (!hooks_.recovered) return;
  for (const api::Recovery& recovery : recovered_since(before, job.status)) hooks_.recovered(job, recovery);
}

void Reconciler::count(std::string_view name, double amount) const {
  if (hooks_.count) hooks_.count(name, amount);
}

// Read your writes: the answer of the last status write, as long as the cache is behind it.
Reconciler::JobPtr Reconciler::newest(const ObjectKey& key) {
  const JobPtr cached = world_.jobs.store().get(key);
  const auto written = written_.find(key);
  if (written == written_.end()) return cached;
  const auto version = [](const JobPtr& job) {
    return kube::resource_version_number(job->metadata.resource_version).value_or(0);
  };
  if (cached && written->second->metadata.uid == cached->metadata.uid && version(written->second) > version(cached)) {
    return written->second;
  }
  if (!cached || version(written->second) < version(cached)) written_.erase(written);
  return cached;
}

void Reconciler::reconcile(const ObjectKey& key, Done done) {
  if (!may_act_()) return done(kube::Reconciled::done());
  count("pitcrew_reconciles_total");
  const JobPtr job = newest(key);
  if (!job || job->metadata.deletion_time) {
    forget(key);
    return done(kube::Reconciled::done());
  }
  began_[key] = world_.loop.now();
  if (wait_for_caches(key, job, done)) return;
  auto snapshot = world_.snapshots.build(job, term_, leading_since_);
  if (!snapshot) return done(kube::Reconciled::terminal(snapshot.error()));
  const Instant now = world_.loop.now();
  Plan plan = decide(*snapshot, now);
  if (plan.waiting.empty()) {
    waiting_.erase(key);
  } else {
    waiting_.insert(key);
  }
  if (const auto wait = hold_back(job, plan)) return done(kube::Reconciled::again_after(*wait));
  if (!plan.status) patch_channel(job, *snapshot);
  act(key, job, std::move(plan), std::move(done));
}

bool Reconciler::wait_for_caches(const ObjectKey& key, const JobPtr& job, const Done& done) {
  switch (expectations_.state(key)) {
    case kube::Expectations::State::kSatisfied:
      return false;
    case kube::Expectations::State::kPending:
      count("pitcrew_reconciles_waiting_for_cache_total");
      done(kube::Reconciled::again_after(seconds(1)));  // the watch's event comes first
      return true;
    case kube::Expectations::State::kExpired:
      list_live(key, job, done);
      return true;
  }
  return false;
}

// The watch has not shown what was done for long: go on only where the cache and the API agree about this job's pods.
void Reconciler::list_live(const ObjectKey& key, const JobPtr& job, const Done& done) {
  kube::ListOptions options;
  options.ns = key.ns;
  options.label_selector = std::string(api::label::kJobUid) + "=" + job->metadata.uid;
  client_.list<kube::Pod>(options, [this, key, job, done](Result<kube::List<kube::Pod>> list) {
    if (!list) return done(kube::Reconciled::failed(list.error()));
    std::set<std::string> live;
    for (const auto& pod : list->items) live.insert(pod->metadata.uid + (pod->deleting() ? "-" : "+"));
    std::set<std::string> cached;
    for (const auto& pod : world_.pods.store().by_index(kByController, job->metadata.uid)) {
      cached.insert(pod->metadata.uid + (pod->deleting() ? "-" : "+"));
    }
    if (live == cached) {
      expectations_.forget(key);
      return done(kube::Reconciled::again_after(Duration(0)));
    }
    log_.warning("the cache of pods is behind the API; waiting for it", {{"job", to_string(key)}});
    done(kube::Reconciled::again_after(seconds(5)));
  });
}

std::optional<Duration> Reconciler::hold_back(const JobPtr& job, const Plan& plan) {
  if (!plan.status) return std::nullopt;
  const Instant now = world_.loop.now();
  if (only_progress(job->status, *plan.status) && !quiet_writes_.try_take(now)) {
    count("pitcrew_progress_writes_held_back_total");
    return seconds(1);
  }
  const auto [limit, fresh] = writes_.try_emplace(job->metadata.key(), kWritesPerSecond, kWritesBurst);
  if (limit->second.try_take(now)) return std::nullopt;
  count("pitcrew_status_writes_held_back_total");
  log_.warning("too many status writes in a row; slowing down", {{"job", to_string(job->metadata.key())}});
  return milliseconds(500);
}

void Reconciler::act(const ObjectKey& key, const JobPtr& job, Plan plan, Done done) {
  const std::optional<Instant> wake = plan.wake;
  const auto rest = [this, wake, done] {
    if (!wake) return done(kube::Reconciled::done());
    done(kube::Reconciled::again_after(std::max(Duration(0), *wake - world_.loop.now())));
  };
  if (!plan.acts() && plan.events.empty()) return rest();
  executor_.execute(job, std::move(plan), [this, key, job, rest, done](Result<Executor::Outcome> outcome) {
    if (!outcome) {
      if (outcome.error().code == Code::kCancelled) return done(kube::Reconciled::done());
      count("pitcrew_reconcile_errors_total");
      return done(kube::Reconciled::failed(outcome.error()));
    }
    // The cache is behind: its next event brings the job back; the wait is for a lost one.
    if (outcome->stale)
      return done(kube::Reconciled::failed(Error(Code::kConflict, "the job has changed since it was read")));
    if (!outcome->written) return rest();
    // The deletion may have come before the answer: nobody would forget it again.
    const JobPtr known = world_.jobs.store().get(key);
    if (!known || known->metadata.uid != outcome->written->metadata.uid) return done(kube::Reconciled::done());
    written_[key] = outcome->written;
    world_.snapshots.job_changed(outcome->written);
    if (hooks_.status_written) hooks_.status_written(*outcome->written);
    tell_recovered(job->status, *outcome->written);
    done(kube::Reconciled::again_after(Duration(0)));
  });
}

// channel.json of pods that were made before its last change (a rotated CA, another address).
void Reconciler::patch_channel(const JobPtr& job, const Snapshot& snapshot) {
  for (const PodView& view : snapshot.pods) {
    const kube::Pod& pod = *view.pod;
    if (pod.ended() || pod.deleting() || patched_.contains(pod.metadata.uid)) continue;
    const auto shown = pod.metadata.annotations.find(api::annotation::kChannel);
    if (shown != pod.metadata.annotations.end() && shown->second == channel_mark_) continue;
    kube::Patch patch;
    patch.body = {{"metadata", {{"annotations", {{api::annotation::kChannel, channel_json_}}}}}};
    patch.preconditions.uid = pod.metadata.uid;
    const std::string uid = pod.metadata.uid;
    patched_.insert(uid);
    client_.patch<kube::Pod>(pod.metadata.key(), std::move(patch),
                             [this, uid, key = job->metadata.key()](Result<kube::Ptr<kube::Pod>> patched) {
                               patched_.erase(uid);
                               if (!patched && patched.error().retryable()) controller_.enqueue_after(key, seconds(1));
                             });
  }
}

}  // namespace pitcrew::control
