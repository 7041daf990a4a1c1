#include "operator/execute/executor.hpp"

#include <algorithm>

#include "lib/kube/types/disruption_budget.hpp"
#include "operator/execute/epoch_key.hpp"

namespace pitcrew::control {
namespace {

Error not_leading() { return Error(Code::kCancelled, "this operator does not lead any more"); }

}  // namespace

struct Executor::Run {
  JobPtr job;
  Plan plan;
  Done done;
  Logger log;
  std::string channel_json;  // the same for all pods of a run
  size_t next_create = 0;
  size_t creating = 0;         // creates under way
  size_t creates_allowed = 1;  // at most so many
  std::optional<Error> create_error;

  ObjectKey key() const { return job->metadata.key(); }
};

Executor::Executor(kube::Client& client, kube::EventRecorder& events, kube::Expectations& expectations,
                   ExecutorSettings settings, ExecutorHooks hooks, Logger log)
    : client_(client),
      events_(events),
      expectations_(expectations),
      settings_(std::move(settings)),
      hooks_(std::move(hooks)),
      log_(std::move(log)) {}

void Executor::execute(JobPtr job, Plan plan, Done done) {
  auto run = std::make_shared<Run>();
  run->log = log_.with({{"job", to_string(job->metadata.key())}});
  run->job = std::move(job);
  run->plan = std::move(plan);
  run->done = std::move(done);
  if (stopped(run)) return;
  if (run->plan.status) return write_status(run);
  send_messages(run);
}

bool Executor::stopped(const RunPtr& run) {
  if (hooks_.may_act()) return false;
  run->done(not_leading());
  return true;
}

void Executor::write_status(const RunPtr& run) {
  api::TrainingJob changed = *run->job;
  changed.metadata.resource_version = run->plan.resource_version;
  changed.status = *run->plan.status;
  client_.update_status<api::TrainingJob>(changed, [this, run](Result<JobPtr> written) {
    if (!written) {
      if (written.error().code == Code::kConflict) return finish(run, {nullptr, true});
      return run->done(written.error().with_context("writing the status of " + to_string(run->key())));
    }
    run->log.debug("status written",
                   {{"phase", to_string((*written)->status.phase)}, {"epoch", (*written)->status.epoch.number.value}});
    finish(run, {*written, false});
  });
}

void Executor::send_messages(const RunPtr& run) {
  for (SendMessage& message : run->plan.messages) {
    if (auto* epoch = std::get_if<api::channel::Epoch>(&message.message)) {
      epoch->key = epoch_key(settings_.epoch_secret, run->job->metadata.uid, epoch->id);
    }
    if (!hooks_.send(message.pod_uid, message.message)) {
      run->log.info("a launcher has no connection; the message waits for it", {{"pod", message.pod_name}});
    }
  }
  create_budget(run);
}

void Executor::create_budget(const RunPtr& run) {
  if (!run->plan.create_budget) return create_more(run);
  if (stopped(run)) return;
  const std::string name = budget_name(*run->job);
  expectations_.expect(run->key(), name);
  client_.create_raw(kube::DisruptionBudget::type(), build_budget(*run->job),
                     [this, run, name](Result<kube::Payload> created) {
                       const bool there = !created && created.error().code == Code::kAlreadyExists;
                       if (!created || hooks_.has_budget(run->job->metadata.uid)) {
                         expectations_.observed(run->key(), name);
                       }
                       if (!created && !there) {
                         return run->done(created.error().with_context("creating the PodDisruptionBudget " + name));
                       }
                       create_more(run);
                     });
}

// As many more as are allowed under way. Each that succeeds allows one more, so that they double with every answer's
// time; nobody waits for the slowest of a batch.
void Executor::create_more(const RunPtr& run) {
  while (!run->create_error && run->next_create < run->plan.creates.size() && run->creating < run->creates_allowed) {
    if (!hooks_.may_act()) {
      run->create_error = not_leading();
      break;
    }
    if (run->channel_json.empty()) run->channel_json = hooks_.channel_json();
    ++run->creating;
    create(run, run->plan.creates[run->next_create++], [this, run](const Status& status) {
      --run->creating;
      if (status) {
        run->creates_allowed = std::min(run->creates_allowed + 1, settings_.create_batch_limit);
      } else if (!run->create_error) {
        run->create_error = status.error();
      }
      create_more(run);
    });
  }
  if (run->creating > 0) return;
  if (run->create_error) return run->done(*run->create_error);
  deletes(run);
}

void Executor::create(const RunPtr& run, const CreatePod& create, std::function<void(Status)> done) {
  const ObjectKey key{run->job->metadata.ns, api::pod_name(*run->job, create.serial)};
  Json pod = build_pod(*run->job, create.serial, create.node, run->channel_json, settings_.pods);
  expectations_.expect(run->key(), key.name);
  client_.create_raw(
      kube::Pod::type(), std::move(pod), [this, run, key, done = std::move(done)](Result<kube::Payload> created) {
        if (created) {
          run->log.info("pod created", {{"pod", key.name}});
          hooks_.pod_refused(run->job->metadata.uid, "");
          settle_created(run, key);
          return done({});
        }
        if (created.error().code == Code::kAlreadyExists) return check_existing(run, key, done);
        // It may have been created all the same, but its name is reserved: the next attempt finds it.
        expectations_.observed(run->key(), key.name);
        const Error error = created.error().with_context("creating pod " + to_string(key));
        // What no retry will mend (Pod Security, an invalid template, a quota) people must hear of.
        if (!error.retryable()) {
          events_.record(kube::reference_to(*run->job), "Warning", "FailedCreate", "CreatePod", error.message);
          hooks_.pod_refused(run->job->metadata.uid, created.error().message);
        }
        done(error);
      });
}

void Executor::check_existing(const RunPtr& run, const ObjectKey& key, std::function<void(Status)> done) {
  client_.get<kube::Pod>(key, [this, run, key, done = std::move(done)](Result<kube::Ptr<kube::Pod>> pod) {
    const auto fail = [&](Error error) {
      expectations_.observed(run->key(), key.name);
      done(std::move(error));
    };
    if (!pod) return fail(pod.error().with_context("looking at the pod that has the name " + to_string(key)));
    const OwnerReference* owner = (*pod)->metadata.controller();
    if (owner == nullptr || owner->uid != run->job->metadata.uid) {
      return fail(
          Error(Code::kAlreadyExists, "pod " + to_string(key) + " exists and is not this job's; delete or rename it"));
    }
    settle_created(run, key);
    done({});
  });
}

// The event may have come before the answer, or long ago.
void Executor::settle_created(const RunPtr& run, const ObjectKey& pod) {
  if (hooks_.cached_pod(pod)) expectations_.observed(run->key(), pod.name);
}

void Executor::deletes(const RunPtr& run) {
  if (run->plan.deletes.empty() && !run->plan.delete_job) return finish(run, {});
  if (stopped(run)) return;
  client_.get<api::TrainingJob>(run->key(), [this, run](Result<JobPtr> live) {
    if (!live) {
      if (live.error().code == Code::kNotFound) return finish(run, {nullptr, true});
      return run->done(live.error().with_context("reading " + to_string(run->key()) + " before deleting"));
    }
    if ((*live)->metadata.uid != run->job->metadata.uid ||
        (*live)->metadata.resource_version != run->plan.resource_version) {
      return finish(run, {nullptr, true});
    }
    if (stopped(run)) return;
    delete_pods(run);
  });
}

void Executor::delete_pods(const RunPtr& run) {
  if (run->plan.deletes.empty()) return delete_job(run);
  struct Batch {
    size_t left = 0;
    std::optional<Error> error;
  };
  auto batch = std::make_shared<Batch>();
  batch->left = run->plan.deletes.size();
  for (const DeletePod& target : run->plan.deletes) {
    kube::RemoveOptions options;
    options.preconditions.uid = target.uid;
    if (target.force) options.grace_seconds = 0;
    const ObjectKey key{run->job->metadata.ns, target.name};
    expectations_.expect(run->key(), target.uid);
    client_.remove<kube::Pod>(key, options, [this, run, batch, target, key](Status status) {
      // Only the watch shows that it is gone, unless it was never there: then there is nothing to wait for.
      const auto cached = hooks_.cached_pod(key);
      const bool shown = !cached || cached->metadata.uid != target.uid || (cached->deleting() && !target.force);
      if (!status || shown) expectations_.observed(run->key(), target.uid);
      const bool gone =
          !status && (status.error().code == Code::kNotFound || status.error().code == Code::kPreconditionFailed ||
                      status.error().code == Code::kConflict);
      if (status)
        run->log.info("pod deleted", {{"pod", target.name}, {"reason", target.reason}, {"force", target.force}});
      if (!status && !gone && !batch->error)
        batch->error = status.error().with_context("deleting pod " + to_string(key));
      if (--batch->left > 0) return;
      if (batch->error) return run->done(*batch->error);
      delete_job(run);
    });
  }
}

void Executor::delete_job(const RunPtr& run) {
  if (!run->plan.delete_job) return finish(run, {});
  if (stopped(run)) return;
  kube::RemoveOptions options;
  options.preconditions = {run->job->metadata.uid, run->plan.resource_version};
  client_.remove<api::TrainingJob>(run->key(), options, [this, run](Status status) {
    if (!status && status.error().code != Code::kNotFound) {
      return run->done(
          status.error().with_context("deleting " + to_string(run->key()) + " at the end of its ttlAfterFinished"));
    }
    run->log.info("job deleted: its ttlAfterFinished is over");
    finish(run, {});
  });
}

void Executor::finish(const RunPtr& run, Outcome outcome) {
  if (!outcome.stale) {
    for (const Notice& notice : run->plan.events) {
      events_.record(kube::reference_to(*run->job), notice.warning ? "Warning" : "Normal", notice.reason, notice.action,
                     notice.message);
    }
  }
  run->done(std::move(outcome));
}

}  // namespace pitcrew::control
