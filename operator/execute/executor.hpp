#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/api/training_job.hpp"
#include "lib/base/log.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/runtime/event_recorder.hpp"
#include "lib/kube/runtime/expectations.hpp"
#include "lib/kube/types/pod.hpp"
#include "operator/decide/plan.hpp"
#include "operator/execute/pod_builder.hpp"

namespace pitcrew::control {

struct ExecutorSettings {
  PodBuilderSettings pods;
  size_t create_batch_limit = 64;  // creates of one job under way: one at first, one more for each that succeeds
  std::string epoch_secret;
};

// What the executor needs of its surroundings beside the API.
struct ExecutorHooks {
  // Whether this operator still leads, in the term that the plan was made in. Asked before every step.
  std::function<bool()> may_act;
  std::function<kube::Ptr<kube::Pod>(const ObjectKey& pod)> cached_pod;
  // Whether the caches show the job's disruption budget.
  std::function<bool(const std::string& job_uid)> has_budget;
  // False: the launcher has no connection now; the plan is made again when it has.
  std::function<bool(const std::string& pod_uid, const api::channel::ToLauncher& message)> send;
  std::function<std::string()> channel_json;
  // Why the API server takes no pod of the job, for good; empty: it has taken one.
  std::function<void(const std::string& job_uid, std::string why)> pod_refused;
};

// Carries out a Plan, in order: a status write alone (with the resource version that the plan rests on), or messages,
// then the disruption budget, then creates, then deletes; events when the rest has succeeded. Everything may be
// repeated: a lost reply ends in an error, the plan is made again from the caches, and a repeated create finds its own
// pod. What was done and isn't in the caches yet is in `expectations`. Lives on the loop, as long as one leadership.
class Executor {
 public:
  using JobPtr = kube::Ptr<api::TrainingJob>;
  struct Outcome {
    JobPtr written;      // the job after a status write
    bool stale = false;  // the job has changed since the plan was made: nothing dangerous was done, plan again
  };
  using Done = std::function<void(Result<Outcome>)>;

  Executor(kube::Client& client, kube::EventRecorder& events, kube::Expectations& expectations,
           ExecutorSettings settings, ExecutorHooks hooks, Logger log);

  void execute(JobPtr job, Plan plan, Done done);

 private:
  struct Run;
  using RunPtr = std::shared_ptr<Run>;
  bool stopped(const RunPtr& run);
  void write_status(const RunPtr& run);
  void send_messages(const RunPtr& run);
  void create_budget(const RunPtr& run);
  void create_more(const RunPtr& run);
  void create(const RunPtr& run, const CreatePod& create, std::function<void(Status)> done);
  void check_existing(const RunPtr& run, const ObjectKey& key, std::function<void(Status)> done);
  void deletes(const RunPtr& run);
  void delete_pods(const RunPtr& run);
  void delete_job(const RunPtr& run);
  void finish(const RunPtr& run, Outcome outcome);
  void settle_created(const RunPtr& run, const ObjectKey& pod);

  kube::Client& client_;
  kube::EventRecorder& events_;
  kube::Expectations& expectations_;
  ExecutorSettings settings_;
  ExecutorHooks hooks_;
  Logger log_;
};

}  // namespace pitcrew::control
