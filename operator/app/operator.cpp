#include "operator/app/operator.hpp"

#include <algorithm>
#include <array>

#include "lib/kube/runtime/leader_elector.hpp"
#include "operator/app/reconciler.hpp"
#include "operator/execute/pod_trim.hpp"
#include "operator/repair/node_keeper.hpp"

namespace pitcrew::control {
namespace {

constexpr size_t kSecretBytes = 32;

kube::WatchScope scope_of(const OperatorSettings& settings) {
  kube::WatchScope scope;
  scope.ns = settings.watch_namespace;
  return scope;
}

// Of everybody's budgets only ours.
kube::WatchScope budget_scope(const OperatorSettings& settings) {
  kube::WatchScope scope = scope_of(settings);
  scope.label_selector = std::string(api::label::kManagedBy) + "=pitcrew";
  return scope;
}

kube::LeaderElectionSettings election_settings(const OperatorSettings& settings) {
  kube::LeaderElectionSettings made;
  made.lease = {settings.ns, settings.lease_name};
  made.identity = settings.identity;
  made.lease_duration = settings.lease_duration;
  made.renew_deadline = settings.renew_deadline;
  made.retry_period = settings.retry_period;
  return made;
}

kube::ClientSettings review_settings(const OperatorSettings& settings) {
  kube::ClientSettings made;
  made.rate = settings.token_reviews_per_second;
  made.burst = 2 * settings.token_reviews_per_second;
  return made;
}

NodeKeeperSettings keeper_settings(const OperatorSettings& settings) {
  NodeKeeperSettings made;
  made.repair = settings.repair;
  made.webhook = settings.webhook;
  made.check = {settings.check_image, settings.ns, settings.check_deadline, settings.check_after_faults,
                settings.check_limit};
  made.identity = settings.identity;
  return made;
}

// Whether a pod keeps its node from being repaired or checked.
bool in_use(const kube::Pod& pod) {
  if (pod.ended()) return false;
  const OwnerReference* owner = pod.metadata.controller();
  if (owner != nullptr && owner->kind == api::TrainingJob::type().kind) return true;
  const auto gpus = pod.requests.find("nvidia.com/gpu");
  return gpus != pod.requests.end() && gpus->second > 0;
}

// Whether a pod that waits to be started has waited long enough to say that it never will be.
bool stuck(const kube::Pod& pod, Instant now) {
  constexpr Duration kPatience = minutes(2);
  constexpr std::array<std::string_view, 5> kReasons = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName",
                                                        "CreateContainerConfigError", "CreateContainerError"};
  if (!pod.start_time || now - *pod.start_time < kPatience) return false;
  const auto waits = [&](const kube::ContainerStatus& container) {
    return std::find(kReasons.begin(), kReasons.end(), container.waiting_reason) != kReasons.end();
  };
  return std::any_of(pod.initializing.begin(), pod.initializing.end(), waits) ||
         std::any_of(pod.containers.begin(), pod.containers.end(), waits);
}

// Whether anything changed of a node that a decision may depend on: heartbeats change none of it.
bool matters(const kube::Node& before, const kube::Node& now) {
  const auto conditions = [](const kube::Node& node) {
    std::map<std::string, std::string> values;
    for (const kube::NodeCondition& condition : node.conditions) values[condition.type] = condition.status;
    return values;
  };
  return before.unschedulable != now.unschedulable || before.taints != now.taints ||
         before.allocatable != now.allocatable || before.metadata.labels != now.metadata.labels ||
         conditions(before) != conditions(now);
}

bool matters(const api::NodeHealth& before, const api::NodeHealth& now) {
  return before.spec != now.spec || before.status.verdicts != now.status.verdicts ||
         before.status.rates != now.status.rates;
}

}  // namespace

Status OperatorSettings::validate() const {
  if (identity.empty()) return Error(Code::kInvalidArgument, "operator: `identity` must name this process");
  if (launcher_image.empty()) return Error(Code::kInvalidArgument, "operator: `launcher_image` must be set");
  if (epoch_secret.size() < kSecretBytes) {
    return Error(Code::kInvalidArgument, "operator: the secret of epochs' keys must have at least 32 bytes");
  }
  if (workers == 0 || create_batch_limit == 0) {
    return Error(Code::kInvalidArgument, "operator: `workers` and `create_batch_limit` must be at least 1");
  }
  if (requests_per_second <= 0 || request_burst <= 0 || token_reviews_per_second <= 0) {
    return Error(Code::kInvalidArgument, "operator: requests and token reviews a second must be above 0");
  }
  if (const Status good = keeper_settings(*this).validate(); !good) return good;
  return election_settings(*this).validate();
}

class Operator::Impl {
 public:
  Impl(Loop& loop, kube::Transport& transport, ChannelServer& channel, Random random, Logger log,
       OperatorSettings settings, OperatorHooks hooks)
      : loop_(loop),
        transport_(transport),
        random_(random),
        log_(std::move(log)),
        settings_(std::move(settings)),
        hooks_(std::move(hooks)),
        jobs_(loop, transport, random_(), scope_of(settings_), {}, log_),
        pods_(loop, transport, random_(), {}, {}, log_),
        nodes_(loop, transport, random_(), {}, {}, log_),
        quotas_(loop, transport, random_(), scope_of(settings_), {}, log_),
        budgets_(loop, transport, random_(), budget_scope(settings_), {}, log_),
        healths_(loop, transport, random_(), {}, {}, log_),
        review_client_(loop, transport, random_(), review_settings(settings_)),
        auth_(
            loop, review_client_, [this](const ObjectKey& key) { return pods_.store().get(key); },
            [this](const std::string& uid) -> std::optional<ObjectKey> {
              const auto key = keys_.find(uid);
              if (key == keys_.end()) return std::nullopt;
              return key->second;
            }),
        hub_(loop, channel, auth_, {}, hub_callbacks(), log_),
        snapshots_(jobs_.store(), pods_.store(), hub_, {settings_.launcher_image}),
        alive_(std::make_shared<bool>(true)) {
    pods_.set_transform(trim_pod);
    pods_.add_index(kByController, kube::index_by_controller_uid<kube::Pod>());
    pods_.add_index(kByNode, kube::index_by_node<kube::Pod>());
    watch_jobs();
    watch_pods();
    watch_nodes();
    watch_quotas();
    watch_budgets();
    watch_healths();
    stand(Term(0));
  }

  ~Impl() { *alive_ = false; }

  void start() {
    jobs_.start();
    pods_.start();
    nodes_.start();
    quotas_.start();
    budgets_.start();
    healths_.start();
    hub_.start();
    elector_->start();
  }

  void stop(std::function<void()> done) {
    if (stopping_) return;
    stopping_ = true;
    stopped_ = std::move(done);
    log_.info("stopping");
    if (!reconciler_) return release();
    reconciler_->stop([this, alive = alive_] {
      if (*alive) release();
    });
  }

  bool leading() const { return reconciler_ != nullptr && elector_->leading(); }
  uint64_t term() const { return elector_->term().value; }
  bool ready() const {
    return !stopping_ && jobs_.synced() && pods_.synced() && nodes_.synced() && quotas_.synced() && budgets_.synced();
  }
  size_t queue_depth() const { return reconciler_ ? reconciler_->depth() : 0; }
  OperatorNumbers numbers() const {
    OperatorNumbers numbers;
    if (reconciler_) reconciler_->fill(numbers);
    numbers.channel = hub_.metrics();
    numbers.sessions = hub_.sessions();
    numbers.token_reviews = auth_.reviews();
    numbers.jobs = jobs_.store().size();
    numbers.pods = pods_.store().size();
    numbers.nodes = nodes_.store().size();
    numbers.kept += keys_.size() + invalid_.size() + snapshots_.kept() + hub_.kept();
    return numbers;
  }
  bool has_node(const std::string& name) const { return nodes_.store().get({"", name}) != nullptr; }
  void for_each_job(const std::function<void(const api::TrainingJob&)>& function) const {
    jobs_.store().for_each([&](const JobInformer::Entry& job) { function(*job); });
  }

 private:
  static constexpr char kByNode[] = "node";
  static constexpr size_t kInvalidRemembered = 1000;

  struct Invalid {
    kube::ObjectReference job;
    std::string why;
  };

  ChannelHub::Callbacks hub_callbacks() {
    ChannelHub::Callbacks callbacks;
    callbacks.changed = [this](const std::string& job_uid, bool urgent) {
      const auto key = keys_.find(job_uid);
      if (reconciler_ && key != keys_.end()) {
        reconciler_->enqueue_event(key->second, urgent ? kube::priority::kUrgent : kube::priority::kNormal);
      }
    };
    callbacks.message = [this](const std::string& job_uid, const api::channel::FromLauncher& message) {
      const auto key = keys_.find(job_uid);
      if (hooks_.launcher_message && key != keys_.end()) hooks_.launcher_message(key->second, message);
    };
    callbacks.higher_term = [this](Term seen) {
      loop_.post([this, alive = alive_, seen] {
        if (*alive) stand_again_above(seen);
      });
    };
    callbacks.config_changed = [this] {
      if (reconciler_) reconciler_->enqueue_all(kube::priority::kNormal);
    };
    return callbacks;
  }

  void watch_jobs() {
    jobs_.on_undecodable([this](const kube::Payload& payload, const Error& error) {
      const auto json = payload.json();
      ObjectMeta metadata;
      Problems ignored;
      if (!json || !(*json)->is_object() || !(*json)->contains("metadata")) return;
      read_object_meta((*json)->at("metadata"), metadata, ignored);
      if (metadata.uid.empty() || metadata.deletion_time) return;
      if (invalid_.size() >= kInvalidRemembered && !invalid_.contains(metadata.uid)) return;
      const ResourceType& type = api::TrainingJob::type();
      Invalid& known = invalid_[metadata.uid];
      known = {{type.api_version(), type.kind, metadata.ns, metadata.name, metadata.uid}, error.message};
      if (reconciler_) reconciler_->invalid(known.job, known.why);
    });
    jobs_.on_gone([this](const ObjectMeta& metadata) { invalid_.erase(metadata.uid); });
    JobInformer::Handler handler;
    handler.on_add = [this](const JobInformer::Entry& job, bool initial) {
      invalid_.erase(job->metadata.uid);
      keys_[job->metadata.uid] = job->metadata.key();
      snapshots_.job_changed(job);
      if (reconciler_)
        reconciler_->enqueue(job->metadata.key(), initial ? kube::priority::kInitial : kube::priority::kNormal);
    };
    handler.on_update = [this](const JobInformer::Entry&, const JobInformer::Entry& now) {
      invalid_.erase(now->metadata.uid);
      if (!reconciler_) return snapshots_.job_changed(now);
      if (reconciler_->own_write(*now)) return;
      reconciler_->enqueue(now->metadata.key());
    };
    handler.on_delete = [this](const JobInformer::Entry& last, bool) {
      keys_.erase(last->metadata.uid);
      invalid_.erase(last->metadata.uid);
      snapshots_.job_removed(*last);
      hub_.forget_job(last->metadata.uid);
      if (reconciler_) reconciler_->job_gone(*last);
    };
    jobs_.add_handler(std::move(handler));
  }

  void watch_pods() {
    PodInformer::Handler handler;
    handler.on_add = [this](const PodInformer::Entry& pod, bool) {
      snapshots_.pod_changed(nullptr, pod.get());
      pod_seen(*pod, false);
    };
    handler.on_update = [this](const PodInformer::Entry& old, const PodInformer::Entry& now) {
      snapshots_.pod_changed(old.get(), now.get());
      if (now->ended() && !old->ended()) {
        hub_.pod_ended(now->metadata.uid);
        if (reconciler_) reconciler_->enqueue_waiting();
      }
      pod_seen(*now, false);
    };
    handler.on_delete = [this](const PodInformer::Entry& last, bool) {
      snapshots_.pod_changed(last.get(), nullptr);
      hub_.forget(last->metadata.uid);
      pod_seen(*last, true);
      if (reconciler_) reconciler_->enqueue_waiting();
    };
    pods_.add_handler(std::move(handler));
  }

  void pod_seen(const kube::Pod& pod, bool gone) {
    if (!reconciler_) return;
    const OwnerReference* owner = pod.metadata.controller();
    if (owner == nullptr) return;
    if (const auto key = keys_.find(owner->uid); key != keys_.end()) reconciler_->pod_seen(key->second, pod, gone);
  }

  void watch_nodes() {
    NodeInformer::Handler handler;
    handler.on_add = [this](const NodeInformer::Entry& node, bool) {
      snapshots_.node_changed(node);
      if (reconciler_) reconciler_->enqueue_waiting();
    };
    handler.on_update = [this](const NodeInformer::Entry& old, const NodeInformer::Entry& now) {
      snapshots_.node_changed(now);
      if (matters(*old, *now)) node_seen(now->metadata.name);
    };
    handler.on_delete = [this](const NodeInformer::Entry& last, bool) {
      snapshots_.node_removed(*last);
      node_seen(last->metadata.name);
    };
    nodes_.add_handler(std::move(handler));
  }

  void watch_quotas() {
    const auto seen = [this](const ObjectKey& key, const QuotaInformer::Entry& quota) {
      snapshots_.quota_changed(key, quota);
      if (reconciler_) reconciler_->enqueue_waiting();
    };
    QuotaInformer::Handler handler;
    handler.on_add = [seen](const QuotaInformer::Entry& quota, bool) { seen(quota->metadata.key(), quota); };
    handler.on_update = [seen](const QuotaInformer::Entry&, const QuotaInformer::Entry& now) {
      seen(now->metadata.key(), now);
    };
    handler.on_delete = [seen](const QuotaInformer::Entry& last, bool) { seen(last->metadata.key(), nullptr); };
    quotas_.add_handler(std::move(handler));
  }

  void watch_budgets() {
    const auto seen = [this](const kube::DisruptionBudget& budget, bool gone) {
      snapshots_.budget_changed(budget, gone);
      const OwnerReference* owner = budget.metadata.controller();
      if (!reconciler_ || owner == nullptr) return;
      if (const auto key = keys_.find(owner->uid); key != keys_.end()) reconciler_->budget_seen(key->second, budget);
    };
    BudgetInformer::Handler handler;
    handler.on_add = [seen](const BudgetInformer::Entry& budget, bool) { seen(*budget, false); };
    handler.on_delete = [seen](const BudgetInformer::Entry& last, bool) { seen(*last, true); };
    budgets_.add_handler(std::move(handler));
  }

  void watch_healths() {
    HealthInformer::Handler handler;
    handler.on_add = [this](const HealthInformer::Entry& health, bool) {
      snapshots_.health_changed(health);
      node_seen(health->spec.node_name);
    };
    handler.on_update = [this](const HealthInformer::Entry& old, const HealthInformer::Entry& now) {
      snapshots_.health_changed(now);
      if (matters(*old, *now)) node_seen(now->spec.node_name);
    };
    handler.on_delete = [this](const HealthInformer::Entry& last, bool) { snapshots_.health_removed(*last); };
    healths_.add_handler(std::move(handler));
  }

  void node_seen(const std::string& node) {
    if (!reconciler_) return;
    for (const auto& pod : pods_.store().by_index(kByNode, node)) {
      const OwnerReference* owner = pod->metadata.controller();
      if (owner == nullptr) continue;
      if (const auto key = keys_.find(owner->uid); key != keys_.end())
        reconciler_->enqueue(key->second, kube::priority::kUrgent);
    }
    reconciler_->enqueue_waiting();
  }

  void lead(Term term) {
    if (stopping_) return;
    // Whoever was cut off, and leads again, may hold watches that died in between.
    jobs_.doubt();
    pods_.doubt();
    nodes_.doubt();
    quotas_.doubt();
    budgets_.doubt();
    healths_.doubt();
    hub_.lead(term);
    const ReconcilerWorld world{loop_, transport_, jobs_, pods_, nodes_, quotas_, budgets_, hub_, snapshots_};
    const auto may_act = [this, term] { return elector_->leading() && elector_->term() == term; };
    reconciler_ = std::make_unique<Reconciler>(world, settings_, hooks_, term, may_act, random_.split(), log_);
    reconciler_->start();
    keeper_ = std::make_unique<NodeKeeper>(
        loop_, transport_, random_(), keeper_settings(settings_),
        NodeKeeperWorld{[this](const auto& function) { for_each_node(function); }, may_act, hooks_.post}, log_);
    keeper_->start();
    for (const auto& [uid, invalid] : invalid_) reconciler_->invalid(invalid.job, invalid.why);
    if (hooks_.leadership) hooks_.leadership(true, term.value);
  }

  void for_each_node(const std::function<void(const NodeCare&, const CheckPod&)>& function) const {
    healths_.store().for_each([&](const HealthInformer::Entry& health) {
      NodeCare care;
      care.health = health;
      const auto node = nodes_.store().get({"", health->spec.node_name});
      if (node && snapshots_.health_of(*node) == health) care.node = node;
      CheckPod check;
      const ObjectKey check_key{settings_.ns, check_pod_name(*health)};
      if (const auto pod = pods_.store().get(check_key)) check = {true, pod->ended(), stuck(*pod, loop_.now())};
      for (const auto& pod : pods_.store().by_index(kByNode, health->spec.node_name)) {
        care.used = care.used || (pod->metadata.key() != check_key && in_use(*pod));
      }
      function(care, check);
    });
  }

  void lost(const std::string& reason) {
    step_down();
    if (stopping_) return release();
    if (hooks_.lease_lost) hooks_.lease_lost(reason);
  }

  void step_down() {
    const uint64_t term = reconciler_ ? reconciler_->term().value : 0;
    reconciler_.reset();
    keeper_.reset();
    hub_.step_down();
    if (term != 0 && hooks_.leadership) hooks_.leadership(false, term);
  }

  // Launchers have obeyed a higher term than ours and would obey us no more: stand for election above it.
  void stand_again_above(Term seen) {
    if (stopping_ || !reconciler_ || seen <= reconciler_->term()) return;
    log_.warning("launchers have seen a higher term; standing again above it",
                 {{"term", reconciler_->term().value}, {"seen", seen.value}});
    step_down();
    elector_->raise_term(seen);
    elector_->release([this, alive = alive_, seen] {
      if (!*alive) return;
      if (stopping_) return finish_stop();
      stand(seen);
      elector_->start();
    });
  }

  // An elector stands once; after a release another takes its place.
  void stand(Term above) {
    elector_ = std::make_unique<kube::LeaderElector>(
        loop_, settings_.lease_transport != nullptr ? *settings_.lease_transport : transport_, random_(),
        election_settings(settings_),
        kube::LeaderElector::Callbacks{[this](Term term) { lead(term); },
                                       [this](const std::string& reason) { lost(reason); }},
        log_);
    elector_->raise_term(above);
  }

  void release() {
    if (released_) return;
    released_ = true;
    step_down();
    elector_->release([this, alive = alive_] {
      if (*alive) finish_stop();
    });
  }

  void finish_stop() {
    hub_.stop();
    log_.info("stopped");
    const auto done = std::exchange(stopped_, nullptr);
    if (done) done();
  }

  Loop& loop_;
  kube::Transport& transport_;
  Random random_;
  Logger log_;
  OperatorSettings settings_;
  OperatorHooks hooks_;
  JobInformer jobs_;
  PodInformer pods_;
  NodeInformer nodes_;
  QuotaInformer quotas_;
  BudgetInformer budgets_;
  // Never waited for: without agents, or without their definition, jobs run as well.
  HealthInformer healths_;
  kube::Client review_client_;
  SessionAuth auth_;
  ChannelHub hub_;
  SnapshotBuilder snapshots_;
  std::map<std::string, ObjectKey> keys_;   // job UID → key
  std::map<std::string, Invalid> invalid_;  // by UID: what can't be decoded
  bool stopping_ = false;
  bool released_ = false;
  std::function<void()> stopped_;
  std::unique_ptr<Reconciler> reconciler_;
  std::unique_ptr<NodeKeeper> keeper_;  // of nodes; while it leads
  std::unique_ptr<kube::LeaderElector> elector_;
  std::shared_ptr<bool> alive_;
};

Operator::Operator(Loop& loop, kube::Transport& transport, ChannelServer& channel, Random random, Logger log,
                   OperatorSettings settings, OperatorHooks hooks)
    : impl_(std::make_shared<Impl>(loop, transport, channel, random, std::move(log), std::move(settings),
                                   std::move(hooks))) {}

Operator::~Operator() = default;

void Operator::start() { impl_->start(); }
void Operator::stop(std::function<void()> done) { impl_->stop(std::move(done)); }
bool Operator::leading() const { return impl_->leading(); }
uint64_t Operator::term() const { return impl_->term(); }
bool Operator::ready() const { return impl_->ready(); }
size_t Operator::queue_depth() const { return impl_->queue_depth(); }
OperatorNumbers Operator::numbers() const { return impl_->numbers(); }
bool Operator::has_node(const std::string& name) const { return impl_->has_node(name); }
void Operator::for_each_job(const std::function<void(const api::TrainingJob& job)>& function) const {
  impl_->for_each_job(function);
}

}  // namespace pitcrew::control
