#include "operator/app/metrics.hpp"

#include <map>

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "lib/base/version.hpp"

namespace pitcrew::control {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr char kController[] = "trainingjob";
const prometheus::Histogram::BucketBoundaries kRequestBuckets{0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                              0.5,   1,    2.5,   5,    10,  30};
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
}

void show_numbers(const Operator& shown, Page& page) {
  const OperatorNumbers numbers = shown.numbers();
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

}  // namespace

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
                       .Register(*this)) {}

  std::vector<MetricFamily> Collect() const override {
    std::vector<MetricFamily> families = prometheus::Registry::Collect();
    Page page;
    page.gauge("pitcrew_build_info", "1; the version is a label", 1, {{"version", version()}});
    const bool leads = shown != nullptr && shown->leading();
    page.gauge("leader_election_master_status", "Whether this replica leads", leads ? 1 : 0,
               {{"name", "pitcrew-operator"}});
    if (shown != nullptr) show_numbers(*shown, page);
    if (leads) shown->for_each_job([&](const api::TrainingJob& job) { show_job(job, page); });
    for (MetricFamily& family : std::move(page).take()) families.push_back(std::move(family));
    return families;
  }

  const Operator* shown = nullptr;
  prometheus::Family<prometheus::Counter>& requests;
  prometheus::Family<prometheus::Histogram>& durations;
  prometheus::Family<prometheus::Histogram>& recoveries;
  prometheus::Family<prometheus::Counter>& unfinished;
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

void OperatorMetrics::recovered(const api::Recovery& recovery) {
  const std::string cause(api::to_string(recovery.cause));
  if (!recovery.first_step) return registry_->unfinished.Add({{"cause", cause}}).Increment();
  const auto since = recovery.happened ? recovery.happened : recovery.detected;
  if (!since) return;
  registry_->recoveries.Add({{"cause", cause}, {"rung", std::string(api::to_string(recovery.rung))}}, kRecoveryBuckets)
      .Observe(to_seconds(*recovery.first_step - *since));
}

void OperatorMetrics::count(std::string_view name, double amount) {
  auto found = registry_->named.find(name);
  if (found == registry_->named.end()) {
    auto& family = prometheus::BuildCounter().Name(std::string(name)).Help("See docs/operator.md").Register(*registry_);
    found = registry_->named.emplace(std::string(name), &family).first;
  }
  found->second->Add({}).Increment(amount);
}

std::shared_ptr<prometheus::Registry> OperatorMetrics::registry() const { return registry_; }

}  // namespace pitcrew::control
