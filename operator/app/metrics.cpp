#include "operator/app/metrics.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "lib/base/version.hpp"
#include "lib/kube/types/quantity.hpp"

namespace pitcrew::control {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr char kController[] = "trainingjob";
const prometheus::Histogram::BucketBoundaries kRequestBuckets{0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                              0.5,   1,    2.5,   5,    10,  30};
constexpr const char* kPhases[] = {"unnoticed", "deciding", "ready", "restoring", "first_step"};
const prometheus::Histogram::BucketBoundaries kRecoveryBuckets{1,  2,  3,  5,   7.5, 10,  15,
                                                               20, 30, 60, 120, 300, 600, 1800};

// Families in the order of their names' first use.
class Page {
 public:
  void gauge(const char* name, const char* help, double value, Labels labels = {}) {
    put(name, help, MetricType::Gauge, std::move(labels)).gauge.value = value;
  }
  void counter(const char* name, const char* help, double value, Labels labels = {}) {
    put(name, help, MetricType::Counter, std::move(labels)).counter.value = value;
  }
  std::vector<MetricFamily> take() && { return std::move(families_); }

 private:
  ClientMetric& put(const char* name, const char* help, MetricType type, Labels labels) {
    const auto [found, fresh] = index_.try_emplace(name, families_.size());
    if (fresh) families_.push_back({name, help, type, {}});
    ClientMetric& metric = families_[found->second].metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }
  std::vector<MetricFamily> families_;
  std::map<std::string_view, size_t> index_;  // names are literals
};

double unix_seconds(Instant time) { return to_seconds(time.since_epoch()); }

// Of all replicas together, as the template asks for them.
double gpus_of(const api::TrainingJob& job) {
  kube::Resources asked;
  const Json::json_pointer containers("/spec/containers"), limits("/resources/limits");
  const Json& pod = job.spec.pod_template;
  if (!pod.contains(containers) || !pod.at(containers).is_array()) return 0;
  for (const Json& container : pod.at(containers)) {
    if (!container.is_object() || !container.contains(limits)) continue;
    kube::Resources of_one;
    kube::add_quantities(container.at(limits), of_one);
    if (const auto found = of_one.find("nvidia.com/gpu"); found != of_one.end()) asked[found->first] += found->second;
  }
  return asked.empty() ? 0 : static_cast<double>(asked.begin()->second) / 1000 * job.spec.replicas;
}

void show_goodput(const api::GoodputStatus& goodput, const Labels& labels, Page& page) {
  const std::pair<const char*, double> parts[] = {{"training", goodput.training},   {"starting", goodput.starting},
                                                  {"restoring", goodput.restoring}, {"stalled", goodput.stalled},
                                                  {"redone", goodput.redone},       {"queued", goodput.queued}};
  for (const auto& [part, seconds] : parts) {
    Labels with_part = labels;
    with_part.push_back({"part", part});
    page.gauge("pitcrew_job_seconds", "Where the job's wall time went, by part", seconds, std::move(with_part));
  }
}

// When each of the last recoveries happened: what annotations on dashboards are made of.
void show_recoveries(const api::TrainingJobStatus& status, const Labels& labels, Page& page) {
  std::set<uint64_t> told;
  for (const api::Recovery& recovery : status.recoveries) {
    const auto when = recovery.happened ? recovery.happened : recovery.detected;
    if (!when || !told.insert(recovery.epoch).second) continue;
    Labels one = labels;
    one.push_back({"epoch", std::to_string(recovery.epoch)});
    one.push_back({"cause", std::string(api::to_string(recovery.cause))});
    one.push_back({"rung", std::string(api::to_string(recovery.rung))});
    one.push_back({"node", recovery.node});
    page.gauge("pitcrew_job_recovery_time_seconds", "When each of the job's last ten recoveries happened (Unix time)",
               unix_seconds(*when), std::move(one));
  }
}

void show_job(const api::TrainingJob& job, Page& page) {
  const api::TrainingJobStatus& status = job.status;
  const Labels labels{{"namespace", job.metadata.ns}, {"job", job.metadata.name}};
  const auto gauge = [&](const char* name, const char* help, double value) { page.gauge(name, help, value, labels); };
  Labels info = labels;
  info.push_back({"phase", std::string(api::to_string(status.phase))});
  page.gauge("pitcrew_job_info", "1; the job's phase is a label", 1, std::move(info));
  gauge("pitcrew_job_replicas", "Replicas that the job wants", job.spec.replicas);
  gauge("pitcrew_job_replicas_ready", "Replicas whose launchers are connected", status.ready);
  gauge("pitcrew_job_spares_ready", "Spares whose launchers are connected", status.spare);
  gauge("pitcrew_job_epoch", "The epoch's number: grows at every (re)start",
        static_cast<double>(status.epoch.number.value));
  if (status.progress.step)
    gauge("pitcrew_job_step", "The step of the slowest rank", static_cast<double>(status.progress.step->value));
  if (status.progress.total_steps > 0)
    gauge("pitcrew_job_total_steps", "Steps that the job is to train",
          static_cast<double>(status.progress.total_steps));
  if (status.progress.loss) gauge("pitcrew_job_loss", "The last loss that rank 0 told", *status.progress.loss);
  gauge("pitcrew_job_tokens_per_second", "Tokens trained on a second", status.progress.tokens_per_second);
  if (status.checkpoint.durable_step)
    gauge("pitcrew_job_checkpoint_durable_step", "The newest durable checkpoint's step",
          static_cast<double>(status.checkpoint.durable_step->value));
  if (status.checkpoint.memory_step)
    gauge("pitcrew_job_checkpoint_memory_step", "The newest memory checkpoint's step",
          static_cast<double>(status.checkpoint.memory_step->value));
  const api::GoodputStatus& goodput = status.goodput;
  gauge("pitcrew_job_goodput_ratio", "Time spent training, of all time but queued and suspended", goodput.ratio());
  gauge("pitcrew_job_lost_seconds", "Seconds spent starting, restoring, stalled, or on steps that had to be done again",
        goodput.starting + goodput.restoring + goodput.stalled + goodput.redone);
  gauge("pitcrew_job_queued_seconds", "Seconds spent waiting for room", goodput.queued);
  gauge("pitcrew_job_restarts", "Restarts so far, of every rung", status.restarts.total);
  gauge("pitcrew_job_gpus", "GPUs that its replicas ask for", gpus_of(job));
  if (status.progress.updated)
    gauge("pitcrew_job_progress_time_seconds", "When the last step that is known of was done (Unix time)",
          unix_seconds(*status.progress.updated));
  // A job that should save and never does would have no age: until its first it is told from its start.
  const bool should_save = job.spec.checkpoint && job.spec.checkpoint->every;
  const auto durable =
      status.checkpoint.durable_time || !should_save ? status.checkpoint.durable_time : status.start_time;
  if (durable)
    gauge(
        "pitcrew_job_checkpoint_durable_time_seconds",
        "When the newest durable checkpoint was written, or, of a job with checkpoint.every that has none yet, when it "
        "started (Unix time)",
        unix_seconds(*durable));
  if (status.checkpoint.memory_time)
    gauge("pitcrew_job_checkpoint_memory_time_seconds", "When the newest memory checkpoint was complete (Unix time)",
          unix_seconds(*status.checkpoint.memory_time));
  show_goodput(goodput, labels, page);
  show_recoveries(status, labels, page);
}

void show_numbers(const OperatorNumbers& numbers, Page& page) {
  const Labels queue{{"name", kController}, {"controller", kController}};
  page.gauge("workqueue_depth", "Keys that wait to be reconciled", static_cast<double>(numbers.queued), queue);
  page.gauge("workqueue_waiting", "Keys that wait for their time", static_cast<double>(numbers.waiting), queue);
  page.counter("workqueue_adds_total", "Keys added", static_cast<double>(numbers.queue.adds), queue);
  page.counter("workqueue_retries_total", "Keys added again after a failure",
               static_cast<double>(numbers.queue.retries), queue);
  page.counter("workqueue_queue_seconds_total", "Seconds that keys have waited, summed",
               to_seconds(numbers.queue.queued), queue);
  page.counter("workqueue_work_seconds_total", "Seconds that reconciles have taken, summed",
               to_seconds(numbers.queue.worked), queue);
  page.gauge("workqueue_longest_running_processor_seconds", "How long the oldest reconcile under way has run",
             to_seconds(numbers.longest_running), queue);
  page.gauge("controller_runtime_active_workers", "Reconciles under way", static_cast<double>(numbers.processing),
             {{"controller", kController}});
  const auto reconciles = [&](const char* result, uint64_t count) {
    page.counter("controller_runtime_reconcile_total", "Reconciles by their end", static_cast<double>(count),
                 {{"controller", kController}, {"result", result}});
  };
  reconciles("success", numbers.reconciles.done);
  reconciles("requeue_after", numbers.reconciles.requeued);
  reconciles("error", numbers.reconciles.failed);
  reconciles("terminal_error", numbers.reconciles.terminal);
  page.counter("controller_runtime_reconcile_errors_total", "Reconciles that failed",
               static_cast<double>(numbers.reconciles.failed + numbers.reconciles.terminal),
               {{"controller", kController}});
  page.counter("pitcrew_client_throttled_total", "Requests that waited for the client's own limit",
               static_cast<double>(numbers.requests.throttled));
  page.counter("pitcrew_events_dropped_total", "Events that were not written: too many",
               static_cast<double>(numbers.events.dropped));
  const auto cached = [&](const char* kind, size_t count) {
    page.gauge("pitcrew_cached_objects", "Objects in the caches", static_cast<double>(count), {{"kind", kind}});
  };
  cached("TrainingJob", numbers.jobs);
  cached("Pod", numbers.pods);
  cached("Node", numbers.nodes);
  page.gauge("pitcrew_kept_entries", "Entries about jobs and their pods beside the caches; without jobs there are none",
             static_cast<double>(numbers.kept));
  page.gauge("pitcrew_channel_sessions", "Launchers' connections", static_cast<double>(numbers.sessions));
  const auto opened = [&](const char* result, uint64_t count) {
    page.counter("pitcrew_channel_opened_total", "Launchers' connections by what became of them",
                 static_cast<double>(count), {{"result", result}});
  };
  opened("accepted", numbers.channel.accepted);
  opened("refused", numbers.channel.refused);
  opened("not_leader", numbers.channel.not_leader);
  page.counter("pitcrew_channel_messages_total", "Messages from launchers",
               static_cast<double>(numbers.channel.messages));
  page.counter("pitcrew_channel_bad_messages_total", "Messages from launchers that were passed over",
               static_cast<double>(numbers.channel.bad_messages));
  page.counter("pitcrew_channel_token_reviews_total", "Launchers' tokens that the API server was asked about",
               static_cast<double>(numbers.token_reviews));
}

// What the operator counts by name.
constexpr std::pair<std::string_view, const char*> kHelp[] = {
    {"pitcrew_reconciles_total", "Reconciles"},
    {"pitcrew_reconcile_errors_total", "Reconciles that ended with an error"},
    {"pitcrew_reconciles_waiting_for_cache_total", "Reconciles put off until the cache shows our own write"},
    {"pitcrew_progress_writes_held_back_total", "Status writes put off: they would only have said how far a job is"},
    {"pitcrew_status_writes_held_back_total", "Status writes put off by the limit of all jobs together"},
};
std::string help_of(std::string_view name) {
  for (const auto& [known, help] : kHelp) {
    if (known == name) return help;
  }
  return "Counted by the operator";
}

}  // namespace

// So many scrapes without their node: twenty minutes and more at one every thirty seconds.
constexpr uint32_t kShownWithoutNode = 40;

// The registry of what is counted, which looks up the rest when it is collected.
class OperatorMetrics::Collected final : public prometheus::Registry {
 public:
  Collected()
      : requests(prometheus::BuildCounter()
                     .Name("rest_client_requests_total")
                     .Help("Requests to the API server, by method and status")
                     .Register(*this)),
        durations(prometheus::BuildHistogram()
                      .Name("rest_client_request_duration_seconds")
                      .Help("How long the API server took, watches apart, by verb")
                      .Register(*this)),
        recoveries(prometheus::BuildHistogram()
                       .Name("pitcrew_recovery_seconds")
                       .Help("From what happened to the next step, by cause and rung")
                       .Register(*this)),
        unfinished(prometheus::BuildCounter()
                       .Name("pitcrew_recoveries_failed_total")
                       .Help("Failures that no recovery followed, by cause")
                       .Register(*this)),
        phases(prometheus::BuildCounter()
                   .Name("pitcrew_recovery_phase_seconds_total")
                   .Help("Where recoveries' time went, by phase (unnoticed, deciding, ready, restoring, first_step) "
                         "and cause")
                   .Register(*this)),
        gpu_seconds(prometheus::BuildCounter()
                        .Name("pitcrew_recovery_gpu_seconds_total")
                        .Help("GPU-seconds that recoveries took: from what happened to the next step, times the job's "
                              "GPUs, by cause")
                        .Register(*this)),
        steps_lost(prometheus::BuildCounter()
                       .Name("pitcrew_recovery_steps_lost_total")
                       .Help("Steps that had to be done again, by cause")
                       .Register(*this)),
        on_nodes(prometheus::BuildCounter()
                     .Name("pitcrew_recoveries_by_node_total")
                     .Help("Recoveries by the node that failed, planned ones apart")
                     .Register(*this)) {
    // A series that begins with its first event hides that event from increase() and rate(): what usually happens is
    // there from the start.
    using api::Cause;
    using api::Rung;
    static constexpr std::pair<Cause, Rung> kUsual[] = {
        {Cause::kRankCrash, Rung::kInPlace},       {Cause::kHang, Rung::kInPlace},
        {Cause::kUnknown, Rung::kInPlace},         {Cause::kLauncherDeath, Rung::kRelaunched},
        {Cause::kNodeLoss, Rung::kSpareTaken},     {Cause::kNodeLoss, Rung::kRecreated},
        {Cause::kGpuFault, Rung::kSpareTaken},     {Cause::kGpuFault, Rung::kRecreated},
        {Cause::kEfaFault, Rung::kSpareTaken},     {Cause::kEfaFault, Rung::kRecreated},
        {Cause::kPlanned, Rung::kSpareTaken},      {Cause::kPlanned, Rung::kRecreated},
        {Cause::kLauncherDeath, Rung::kSpareTaken}};
    for (const auto& [cause, rung] : kUsual) {
      const std::string name(api::to_string(cause));
      recoveries.Add({{"cause", name}, {"rung", std::string(api::to_string(rung))}}, kRecoveryBuckets);
      unfinished.Add({{"cause", name}});
      steps_lost.Add({{"cause", name}});
      gpu_seconds.Add({{"cause", name}});
      for (const char* phase : kPhases) phases.Add({{"phase", phase}, {"cause", name}});
    }
    unfinished.Add({{"cause", std::string(api::to_string(Cause::kProgram))}});
    for (const auto& [name, help] : kHelp) {
      auto& family = prometheus::BuildCounter().Name(std::string(name)).Help(help).Register(*this);
      family.Add({});
      named.emplace(std::string(name), &family);
    }
  }

  std::vector<MetricFamily> Collect() const override {
    const bool leads = shown != nullptr && shown->leading();
    // As with the usual causes: a node's first failure is seen where its series stood at 0 before.
    if (leads) {
      shown->for_each_job([&](const api::TrainingJob& job) {
        for (const api::SlotStatus& row : job.status.slots)
          if (!row.node.empty()) recoveries_on(row.node);
      });
    }
    if (shown != nullptr) drop_gone_nodes([this](const std::string& node) { return shown->has_node(node); });
    std::vector<MetricFamily> families = prometheus::Registry::Collect();
    Page page;
    page.gauge("pitcrew_build_info", "1; the version is a label", 1, {{"version", version()}});
    page.gauge("leader_election_master_status", "Whether this replica leads", leads ? 1 : 0,
               {{"name", "pitcrew-operator"}});
    if (shown != nullptr) show_numbers(shown->numbers(), page);
    if (leads) shown->for_each_job([&](const api::TrainingJob& job) { show_job(job, page); });
    for (MetricFamily& family : std::move(page).take()) families.push_back(std::move(family));
    return families;
  }

  prometheus::Counter& recoveries_on(const std::string& node) const {
    NodeSeries& series = nodes_shown[node];
    if (series.counter == nullptr) series.counter = &on_nodes.Add({{"node", node}});
    return *series.counter;
  }

  // Where nodes come and go for months their series would be without end. Once a node is gone its series is shown so
  // many times more that no scrape misses its last change.
  void drop_gone_nodes(const std::function<bool(const std::string& node)>& exists) const {
    for (auto at = nodes_shown.begin(); at != nodes_shown.end();) {
      NodeSeries& series = at->second;
      series.shown_without = exists(at->first) ? 0 : series.shown_without + 1;
      if (series.shown_without <= kShownWithoutNode) {
        ++at;
        continue;
      }
      on_nodes.Remove(series.counter);
      at = nodes_shown.erase(at);
    }
  }

  struct NodeSeries {
    prometheus::Counter* counter = nullptr;
    uint32_t shown_without = 0;  // collections since the node is gone
  };
  const Operator* shown = nullptr;
  mutable std::map<std::string, NodeSeries> nodes_shown;
  prometheus::Family<prometheus::Counter>& requests;
  prometheus::Family<prometheus::Histogram>& durations;
  prometheus::Family<prometheus::Histogram>& recoveries;
  prometheus::Family<prometheus::Counter>& unfinished;
  prometheus::Family<prometheus::Counter>& phases;
  prometheus::Family<prometheus::Counter>& gpu_seconds;
  prometheus::Family<prometheus::Counter>& steps_lost;
  prometheus::Family<prometheus::Counter>& on_nodes;
  std::map<std::string, prometheus::Family<prometheus::Counter>*, std::less<>> named;
};

OperatorMetrics::OperatorMetrics() : registry_(std::make_shared<Collected>()) {}
OperatorMetrics::~OperatorMetrics() { registry_->shown = nullptr; }

void OperatorMetrics::watch(const Operator* shown) { registry_->shown = shown; }

void OperatorMetrics::request(const kube::Request& request, const std::string& code, Duration took) {
  registry_->requests.Add({{"method", std::string(kube::method(request))}, {"code", code}}).Increment();
  if (request.verb == kube::Verb::kWatch) return;
  registry_->durations.Add({{"verb", std::string(kube::to_string(request.verb))}}, kRequestBuckets)
      .Observe(to_seconds(took));
}

void OperatorMetrics::recovered(const api::TrainingJob& job, const api::Recovery& recovery) {
  const std::string cause(api::to_string(recovery.cause));
  if (!recovery.node.empty() && recovery.cause != api::Cause::kPlanned)
    registry_->recoveries_on(recovery.node).Increment();
  if (!recovery.first_step) return registry_->unfinished.Add({{"cause", cause}}).Increment();
  const auto since = recovery.happened ? recovery.happened : recovery.detected;
  if (!since) return;
  registry_->recoveries.Add({{"cause", cause}, {"rung", std::string(api::to_string(recovery.rung))}}, kRecoveryBuckets)
      .Observe(to_seconds(*recovery.first_step - *since));
  registry_->gpu_seconds.Add({{"cause", cause}})
      .Increment(to_seconds(std::max(*recovery.first_step - *since, Duration(0))) * gpus_of(job));
  if (recovery.steps_lost)
    registry_->steps_lost.Add({{"cause", cause}}).Increment(static_cast<double>(*recovery.steps_lost));
  const std::pair<const char*, std::optional<Instant>> marks[] = {{kPhases[0], recovery.detected},
                                                                  {kPhases[1], recovery.decided},
                                                                  {kPhases[2], recovery.ready},
                                                                  {kPhases[3], recovery.restored},
                                                                  {kPhases[4], recovery.first_step}};
  Instant before = *since;
  for (const auto& [phase, time] : marks) {
    if (!time || *time < before) continue;
    registry_->phases.Add({{"phase", phase}, {"cause", cause}}).Increment(to_seconds(*time - before));
    before = *time;
  }
}

void OperatorMetrics::count(std::string_view name, double amount) {
  auto found = registry_->named.find(name);
  if (found == registry_->named.end()) {
    auto& family = prometheus::BuildCounter().Name(std::string(name)).Help(help_of(name)).Register(*registry_);
    found = registry_->named.emplace(std::string(name), &family).first;
  }
  found->second->Add({}).Increment(amount);
}

std::shared_ptr<prometheus::Registry> OperatorMetrics::registry() const { return registry_; }

std::vector<MetricFamily> OperatorMetrics::everything() {
  api::TrainingJob job;
  job.metadata.ns = "team-a";
  job.metadata.name = "llama";
  auto& status = job.status;
  status.progress.step = Step(1);
  status.progress.total_steps = 1;
  status.progress.loss = 1;
  status.checkpoint.durable_step = status.checkpoint.memory_step = Step(1);
  api::Recovery recovery;
  recovery.node = "n0";
  recovery.steps_lost = 1;
  for (auto* time : {&recovery.happened, &recovery.detected, &recovery.decided, &recovery.ready, &recovery.restored,
                     &recovery.first_step, &status.progress.updated, &status.checkpoint.durable_time,
                     &status.checkpoint.memory_time}) {
    *time = Instant(seconds(1));
  }
  status.recoveries = {recovery};

  OperatorMetrics metrics;
  metrics.recovered(job, recovery);
  recovery.first_step.reset();
  metrics.recovered(job, recovery);
  metrics.request({}, "200", Duration(0));
  for (const auto& [name, help] : kHelp) metrics.count(name, 0);
  std::vector<MetricFamily> families = metrics.registry_->Collect();
  Page page;
  show_numbers({}, page);
  show_job(job, page);
  for (MetricFamily& family : std::move(page).take()) families.push_back(std::move(family));
  return families;
}

}  // namespace pitcrew::control
