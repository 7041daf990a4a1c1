#include "agent/app/agent.hpp"

#include <algorithm>
#include <atomic>

#include "agent/judge/builtin_policy.hpp"
#include "agent/probe/observation_tools.hpp"
#include "agent/probe/table/table.hpp"
#include "lib/api/health_names.hpp"

namespace pitcrew::agent {
namespace {

constexpr char kTypeLabel[] = "node.kubernetes.io/instance-type";
constexpr char kHyperPodKind[] = "node.hyperpod";
constexpr Duration kPolicyRetry = seconds(5);

std::string value_of(const std::map<std::string, std::string>& map, const char* key) {
  const auto found = map.find(key);
  return found == map.end() ? "" : found->second;
}

kube::ClientSettings client_settings(const AgentConfig& config) {
  kube::ClientSettings client;
  client.rate = config.requests_per_second;
  client.burst = config.request_burst;
  client.field_manager = api::health::kFieldManager;
  return client;
}

}  // namespace

Agent::Agent(net::AsioLoop& loop, kube::Transport& transport, AgentConfig config, AgentPlace place,
             AgentSettings settings, Random random, Logger log)
    : loop_(loop),
      config_(std::move(config)),
      place_(std::move(place)),
      settings_(std::move(settings)),
      random_(random),
      log_(std::move(log)),
      client_(loop, transport, random_(), client_settings(config_)),
      metrics_(loop),
      users_(paths()),
      self_(std::make_shared<Agent*>(this)) {
  metrics_.set_node(place_.node);
  ActorSettings act;
  act.node = place_.node;
  act.daemon_set_ns = place_.ns;
  act.daemon_set = config_.daemon_set;
  act.budget = config_.cordon_budget;
  act.act.shadow = config_.shadow;
  act.act.heartbeat = config_.heartbeat;
  act.requests_per_second = config_.requests_per_second;
  act.request_burst = config_.request_burst;
  ActorHooks hooks;
  hooks.node = [this](const kube::Node& node) { saw_node(node); };
  hooks.health = [this](const api::NodeHealth* health) { read_health(health); };
  hooks.cordoned = [this](const Verdict&, Duration after) { metrics_.cordoned(after); };
  actor_ = std::make_unique<Actor>(loop_, transport, random_(), act, hooks, log_);
  metrics_.set_actor([this] { return actor_->numbers(); });
}

Agent::~Agent() {
  *self_ = nullptr;
  metrics_.set_actor(nullptr);
}

HostPaths Agent::paths() const { return config_.host.empty() ? HostPaths{} : HostPaths::under(config_.host); }

Status Agent::start() {
  PITCREW_ASSIGN(boot_, read_boot(paths()));
  started_ = loop_.now();
  journal_.booted = boot_.time;
  auto journal = read_journal(posix_file_system(), config_.state);
  if (!journal) log_.warning("nothing is known from before", {{"error", journal.error().message}});
  ledger_.emplace(merge(builtin_policy(), config_.policy), boot_.id);
  PITCREW_TRY(listen());
  if (journal && *journal) {
    journal_ = **journal;
    if (journal_.health.boot_id != boot_.id) {
      journal_.booted = boot_.time;
      journal_.position.reset();
    }
    restore(journal_.health);
  }
  actor_->start();
  read_policies();
  const std::string known = !config_.instance_type.empty() ? config_.instance_type : read_instance_type(paths());
  if (!config_.instance_type.empty() || find_instance_type(known) != nullptr) {
    start_probes(known);
  } else {
    type_timer_ = loop_.after(settings_.type_within, [this, known] { start_probes(known); });
  }
  settle_timer_ = loop_.after(settings_.settle, [this] { tell(); });
  keep_every();
  return {};
}

Status Agent::listen() {
  PITCREW_ASSIGN(endpoints_, net::ProgramEndpoints::listen(
                                 loop_, settings_.listen_host, config_.metrics_port, config_.health_port,
                                 metrics_.registry(), [this] { return not_ready(); }, log_));
  log_.info("listening",
            {{"metrics", net::to_string(metrics_address())}, {"health", net::to_string(health_address())}});
  return {};
}

net::Address Agent::metrics_address() const { return endpoints_.metrics_address(); }
net::Address Agent::health_address() const { return endpoints_.health_address(); }

std::string Agent::not_ready() const {
  if (stopping_) return "stopping";
  const std::string cluster = actor_->not_ready();
  if (!cluster.empty()) return cluster;
  if (!policies_known_) return "the cluster's HealthPolicies have not been read yet";
  if (!history_known_) return "what was judged before is not known yet";
  return "";
}

// ---- what the cluster says ------------------------------------------------------------------------------------------

void Agent::read_policies() {
  client_.list_raw(api::HealthPolicy::type(), {},
                   [this](Result<kube::Client::RawList> list) { took_policies(std::move(list)); });
}

void Agent::took_policies(Result<kube::Client::RawList> list) {
  const bool absent = !list && (list.error().code == Code::kNotFound || list.error().code == Code::kForbidden);
  const Duration every = list || absent ? config_.policy_every : Duration(kPolicyRetry);
  policy_timer_ =
      loop_.after(from_seconds(to_seconds(every) * (0.9 + 0.2 * random_.uniform())), [this] { read_policies(); });
  if (!list && !absent) {
    if (!policies_known_) log_.warning("the HealthPolicies can't be read yet", {{"error", list.error().message}});
    return;
  }
  if (absent && !policies_known_)
    log_.warning("no HealthPolicies of the cluster count", {{"error", list.error().message}});
  size_t problems = absent ? 1 : 0;
  std::map<std::string, std::shared_ptr<const api::HealthPolicy>> policies;
  for (const kube::Payload& item : list ? list->items : std::vector<kube::Payload>()) {
    const auto policy = item.as<api::HealthPolicy>();
    if (policy) {
      policies[(*policy)->metadata.name] = *policy;
    } else {
      ++problems;
      log_.warning("a HealthPolicy is left out", {{"error", policy.error().message}});
    }
  }
  api::HealthPolicy merged = merge(builtin_policy(), config_.policy);
  for (const auto& [name, policy] : policies) merged = merge(std::move(merged), *policy);
  metrics_.policy_problems(problems);
  ledger_->set_policy(std::move(merged));
  policies_known_ = true;
  begin();
}

void Agent::saw_node(const kube::Node& node) {
  const std::string type = value_of(node.metadata.labels, kTypeLabel);
  const bool other = probes_ && machine_.name.empty() && find_instance_type(type) != nullptr;
  if (config_.instance_type.empty() && !type.empty() && (!probes_ || other)) start_probes(type);
  const std::string hyperpod = value_of(node.metadata.labels, api::health::kHyperPodStatus);
  if (hyperpod_ ? *hyperpod_ != hyperpod : !hyperpod.empty()) {
    hyperpod_ = hyperpod;
    look_at_labels();
  }
  take_requests();
}

// HyperPod's own agent says by a label that the node is to be rebooted or replaced; it comes as a reading, so that what
// follows is the policy's.
void Agent::look_at_labels() {
  Observation reading = make_reading(kHyperPodKind, "", loop_.now());
  reading.values["status"] = *hyperpod_;
  reading.text = std::string(api::health::kHyperPodStatus) + "=" + *hyperpod_;
  labels_timer_ = loop_.after(settings_.labels_every, [this] { look_at_labels(); });
  observed({std::move(reading)});
}

// "<id> <rule> <device>", the last two if they are there.
void Agent::take_requests() {
  const kube::Node* node = actor_->node();
  if (!judges() || node == nullptr) return;
  const std::string request = value_of(node->metadata.annotations, api::health::kRequestClear);
  if (request.empty() || request == journal_.cleared) return;
  journal_.cleared = request;
  const auto words = split_words(request, 3);
  Observation clear;
  clear.kind = kinds::kClear;
  if (words.size() > 1) clear.values["rule"] = std::string(words[1]);
  if (words.size() > 2) clear.device = words[2];
  clear.id = "clear/" + request;
  clear.time = loop_.now();
  log_.info("what holds is cleared by hand", {{"request", request}});
  judge({std::move(clear)});
}

void Agent::read_health(const api::NodeHealth* health) {
  if (!history_known_) restore(health == nullptr ? api::NodeHealthStatus{} : health->status);
  if (health == nullptr || !judges()) return;
  const auto& checks = health->status.checks;
  const auto newest =
      std::max_element(checks.begin(), checks.end(), [](const auto& a, const auto& b) { return a.time < b.time; });
  if (newest == checks.end()) return;
  const auto tests = std::count_if(checks.begin(), checks.end(), [&](const auto& one) { return one.id == newest->id; });
  const api::CheckOutcome outcome = api::checked(health->status);
  // What could not be checked is not known to be bad, nor to be good.
  if (outcome == api::CheckOutcome::kUnknown) return;
  const bool passed = outcome == api::CheckOutcome::kPassed;
  // One that was passed before the fault came says nothing about it.
  const auto since = ledger_->waits_for_check();
  if (passed && (!since || newest->time <= *since)) return;
  Observation check;
  check.kind = kinds::kCheck;
  check.values["passed"] = passed ? 1.0 : 0.0;
  check.text = "deep check " + newest->id + (newest->message.empty() ? "" : ": " + newest->message);
  check.id = "check/" + newest->id + "/" + std::to_string(tests) + (passed ? "/passed" : "/failed");
  check.time = loop_.now();
  judge({std::move(check)});
}

void Agent::restore(const api::NodeHealthStatus& before) {
  remembers_ = !before.memory.empty();
  if (const Status restored = ledger_->restore(before); !restored) {
    log_.warning("judgement begins without history", {{"error", restored.error().message}});
    remembers_ = false;
  }
  history_known_ = true;
  begin();
}

// ---- what is seen ---------------------------------------------------------------------------------------------------

bool Agent::judges() const { return history_known_ && policies_known_; }

// Once all is known that judgement needs: the log is read when the GPUs have names, so that its lines are about them.
void Agent::begin() {
  if (!judges() || stopping_) return;
  judge({});
  take_requests();
  if (named_) return start_feed();
  if (feed_ || names_timer_) return;
  names_timer_ = loop_.after(settings_.names_within, [this] { start_feed(); });
}

void Agent::start_feed() {
  names_timer_.reset();
  if (feed_ || config_.kernel_log == "none") return;
  KernelFeedSettings settings;
  settings.source = config_.kernel_log;
  settings.reader = {boot_.id, journal_.booted, Duration(0)};
  feed_.emplace(loop_, settings, journal_.position,
                [this](std::vector<Observation> found) { observed(std::move(found)); });
  feed_->start();
}

void Agent::start_probes(const std::string& instance_type) {
  type_timer_.reset();
  if (stopping_) return;
  machine_ = machine_of(instance_type);
  log_.info("probes start", {{"instanceType", instance_type}, {"known", !machine_.name.empty()}});
  ProbeSettings settings;
  settings.paths = paths();
  settings.machine = machine_;
  settings.nvml = config_.nvml;
  settings.programs = config_.programs;
  std::vector<ProbeTask> tasks = probe_tasks(settings);
  probe_count_ = tasks.size();
  probes_seen_.clear();
  probes_.reset();
  const auto rung = std::make_shared<std::atomic<bool>>(false);
  probes_.emplace(std::move(tasks), [self = self_, rung, &loop = loop_] {
    if (rung->exchange(true)) return;
    loop.post([self, rung] {
      rung->store(false);
      if (*self != nullptr) (*self)->poll_probes();
    });
  });
  poll_probes();
}

void Agent::poll_probes() {
  if (!probes_) return;
  auto seen = probes_->poll(loop_.now());
  const Instant now = loop_.now();
  probe_timer_ = loop_.after(std::max(probes_->next(now) - now, Duration(milliseconds(1))), [this] { poll_probes(); });
  if (!seen.empty()) observed(std::move(seen));
}

void Agent::observed(std::vector<Observation> observations) {
  const Instant now = loop_.now();
  bool users = false, named = false;
  for (Observation& one : observations) {
    ledger_->name(one);
    if (one.kind == "gpu.identity") {
      metrics_.set_gpu(one.device, {static_cast<unsigned>(one.number("index").value_or(0)), one.word("pci"),
                                    one.word("model"), one.word("driver")});
    }
    users = users_.take(one) || users;
    if (one.kind != kinds::kProbe) continue;
    const std::string probe = one.word("probe");
    probes_seen_.insert(probe);
    named = named || probe == "gpu.identity";
    if (one.number("ok") != 1.0) log_.debug("a probe could not look", {{"probe", probe}, {"error", one.text}});
  }
  if (users) metrics_.set_users(users_.users());
  observations = merge_.take(std::move(observations), now);
  for (const Observation& one : observations) {
    metrics_.observed(one);
    if (!one.reading && one.kind != kinds::kProbe) {
      log_.info("seen", {{"kind", one.kind}, {"device", one.device}, {"text", one.text}});
    }
  }
  if (feed_) metrics_.kernel_log_lines(feed_->lines());
  if (named && !std::exchange(named_, true)) begin();
  judge(std::move(observations));
}

void Agent::judge(std::vector<Observation> observations) {
  const Instant now = loop_.now();
  if (!judges()) return;
  const Ledger::Outcome outcome = ledger_->judge(observations, now);
  metrics_.judged(outcome.matches, ledger_->verdicts());
  const bool settled_now = settled();
  if (outcome.changed || settled_now != told_settled_) tell();
  if (outcome.changed) keep_soon();
  if (!ledger_->waits_for_check()) {
    check_timer_.reset();
  } else if (!check_timer_) {
    wait_for_check();
  }
  auto wake = ledger_->wake();
  if (const auto merged = merge_.wake(); merged && (!wake || *merged < *wake)) wake = merged;
  judge_timer_.reset();
  if (wake) judge_timer_ = loop_.after(std::max(*wake - now, Duration(milliseconds(1))), [this] { observed({}); });
}

void Agent::wait_for_check() {
  check_timer_ = loop_.after(settings_.check_every, [this] {
    actor_->read_health_again();
    wait_for_check();
  });
}

// Whether "no fault" may be believed: every probe has looked, the log was read, and what was before is known; where
// nothing is, a node that was tainted when the agent came gets some time.
bool Agent::settled() const {
  const bool looked = probes_ && probes_seen_.size() >= probe_count_;
  const bool read = config_.kernel_log == "none" || probes_seen_.contains("kernel.log");
  if (!judges() || !looked || !read) return false;
  return told_settled_ || remembers_ || !actor_->numbers().quarantined || loop_.now() - started_ >= settings_.settle;
}

void Agent::tell() {
  if (!judges()) return;
  Findings findings = ledger_->findings();
  findings.settled = told_settled_ = settled();
  actor_->found(std::move(findings));
}

// ---- journal and end ------------------------------------------------------------------------------------------------

void Agent::keep_soon() {
  if (keep_soon_timer_) return;
  keep_soon_timer_ = loop_.after(settings_.keep_after, [this] {
    keep_soon_timer_.reset();
    keep();
  });
}

void Agent::keep_every() {
  keep_timer_ = loop_.after(settings_.keep_every, [this] {
    if (feed_ && feed_->position() != journal_.position) keep();
    keep_every();
  });
}

void Agent::keep() {
  if (!judges()) return;
  Findings findings = ledger_->findings();
  if (feed_) journal_.position = feed_->position();
  journal_.health.boot_id = boot_.id;
  journal_.health.gpus = std::move(findings.gpus);
  journal_.health.history = std::move(findings.history);
  journal_.health.memory = std::move(findings.memory);
  const Status kept = write_journal(posix_file_system(), config_.state, journal_);
  if (!kept && keeps_) {
    log_.warning("what was judged can't be kept on this machine; after a restart it comes from NodeHealth",
                 {{"error", kept.error().message}});
  }
  keeps_ = kept.ok();
}

void Agent::stop() {
  if (std::exchange(stopping_, true)) return finish(kExitFailed);
  log_.info("stopping");
  for (Loop::TimerPtr* timer : {&probe_timer_, &judge_timer_, &policy_timer_, &keep_timer_, &keep_soon_timer_,
                                &type_timer_, &names_timer_, &settle_timer_, &labels_timer_, &check_timer_}) {
    timer->reset();
  }
  keep();
  feed_.reset();
  actor_->finish(settings_.stop_within, [this] { finish(kExitStopped); });
}

void Agent::finish(int code) {
  if (exit_code_) return;
  exit_code_ = code;
  loop_.stop();
}

}  // namespace pitcrew::agent
