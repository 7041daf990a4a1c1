#include "agent/act/actor.hpp"

#include <algorithm>
#include <deque>

#include "agent/act/node_patch.hpp"
#include "lib/api/health_names.hpp"
#include "lib/kube/cache/informer.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/fields.hpp"

namespace pitcrew::agent {
namespace {

const ResourceType kDaemonSet{"apps", "v1", "DaemonSet", "daemonsets", true};
const ObjectKey kBudget{"", api::CordonBudget::kName};
constexpr size_t kMaxTold = 1024;
constexpr double kEventBurst = 25;  // as client-go's spam filter: of one object at once, and a second from then on
constexpr double kEventRate = 1.0 / 30;

kube::ClientSettings client_settings(const ActorSettings& settings) {
  kube::ClientSettings client;
  client.rate = settings.requests_per_second;
  client.burst = settings.request_burst;
  client.timeout = settings.timeout;
  client.read_attempts = 1;  // the errands have a back-off of their own
  client.field_manager = api::health::kFieldManager;
  return client;
}

}  // namespace

std::string_view to_string(Errand errand) {
  static constexpr std::array<std::string_view, kErrands> kNames{
      "node", "read-budget", "take-token", "count-cordon", "condition", "event", "read-health", "health"};
  return kNames[static_cast<size_t>(errand)];
}

class Actor::Impl : public std::enable_shared_from_this<Actor::Impl> {
 public:
  Impl(Loop& loop, kube::Transport& transport, uint64_t seed, ActorSettings settings, ActorHooks hooks, Logger log)
      : loop_(loop),
        settings_(std::move(settings)),
        hooks_(std::move(hooks)),
        log_(std::move(log)),
        random_(seed),
        client_(loop, transport, random_(), client_settings(settings_)),
        informer_(loop, transport, random_(), {.field_selector = "metadata.name=" + settings_.node}, {}, log_) {}

  void start() {
    kube::Informer<kube::Node>::Handler handler;
    handler.on_add = [this](const auto& now, bool) { seen(*now); };
    handler.on_update = [this](const auto&, const auto& now) { seen(*now); };
    handler.on_delete = [this](const auto& last, bool) { gone(*last); };
    informer_.add_handler(std::move(handler));
    informer_.start();
  }

  void stop() {
    timer_.reset();
    finish_limit_.reset();
  }

  void found(Findings findings) {
    findings_ = std::move(findings);
    step_soon();
  }

  void read_health_again() {
    standing_.health_read.clear();
    step_soon();
  }

  void finish(Duration limit, std::function<void()> done) {
    finished_ = std::move(done);
    finish_limit_ = loop_.after(limit, [this] { tell_finished(); });
    step_soon();
  }

  std::string not_ready() const {
    if (!has_node_) {
      return informer_.synced() ? "there is no node " + settings_.node + " in the cluster"
                                : "the node " + settings_.node + " has not been read from the API server yet";
    }
    for (const std::string& problem : problems_) {
      if (!problem.empty()) return problem;
    }
    return "";
  }
  ActorNumbers numbers() const {
    ActorNumbers numbers = numbers_;
    if (!has_node_) return numbers;
    numbers.held = held(standing_.node);
    numbers.quarantined = std::any_of(standing_.node.taints.begin(), standing_.node.taints.end(),
                                      [](const kube::Taint& taint) { return taint.key == api::health::kUnhealthy; });
    return numbers;
  }
  const kube::Node* node() const { return has_node_ ? &standing_.node : nullptr; }

 private:
  struct Backoff {
    Instant until;
    Duration delay{0};
    bool away = false;  // the API server could not be reached
  };

  // ---- what the cluster says -------------------------------------------------------------------------------------

  // An answer may be newer than what the watch brings after it.
  void seen(const kube::Node& node) {
    const kube::Node& known = standing_.node;
    if (has_node_ && known.metadata.uid == node.metadata.uid) {
      const auto before = kube::resource_version_number(known.metadata.resource_version);
      const auto now = kube::resource_version_number(node.metadata.resource_version);
      if (before && now && *now <= *before) return;
    }
    has_node_ = true;
    standing_.node = node;
    if (hooks_.node) hooks_.node(node);
    step_soon();
  }

  void gone(const kube::Node& node) {
    if (!has_node_ || standing_.node.metadata.uid != node.metadata.uid) return;
    log_.warning("the node has been deleted from the cluster; nothing is written until it is back");
    has_node_ = false;
    standing_ = {};
  }

  // ---- planning --------------------------------------------------------------------------------------------------

  void step_soon() {
    if (posted_) return;
    posted_ = true;
    loop_.post([self = weak_from_this()] {
      if (const auto impl = self.lock()) {
        impl->posted_ = false;
        impl->step();
      }
    });
  }

  void step() {
    if (busy_) return;
    if (!has_node_) return tell_finished();
    const Instant now = loop_.now();
    Plan made;
    if (findings_) {
      made = plan(*findings_, standing_, settings_.act, now);
      note_refusal(made.refused);
    } else {
      // Judgement waits for what was judged before.
      made.read_health = standing_.health_read != api::node_health_name(spec());
    }
    Instant next = made.wake.value_or(now + hours(1));
    const auto may = [&](Errand errand, bool wanted) {
      if (!wanted) return false;
      const Backoff& backoff = backoffs_[static_cast<size_t>(errand)];
      if (now >= backoff.until) return true;
      next = std::min(next, backoff.until);
      return false;
    };
    if (may(Errand::kNode, made.node.has_value())) return change_node();
    if (may(Errand::kReadBudget, made.read_budget)) return read_budget();
    if (may(Errand::kTakeToken, made.take_token.has_value())) return write_budget(Errand::kTakeToken, *made.take_token);
    if (may(Errand::kCountCordon, made.count_cordon.has_value())) {
      return write_budget(Errand::kCountCordon, *made.count_cordon);
    }
    if (may(Errand::kCondition, made.condition.has_value())) return write_condition(*made.condition);
    if (may(Errand::kEvent, !made.events.empty())) return write_event(made.events.front());
    if (may(Errand::kEvent, !news_.empty())) return write_event(news_.front());
    if (may(Errand::kReadHealth, made.read_health)) return read_health();
    if (may(Errand::kHealth, made.health.has_value())) return write_health(*made.health);
    if (made.idle() && news_.empty()) tell_finished();
    timer_ = loop_.after(std::max(next - now, Duration(0)), [this] { step(); });
  }

  void note_refusal(const std::string& why) {
    if (!why.empty() && !numbers_.refused) log_.warning("the node is unhealthy and not cordoned", {{"why", why}});
    numbers_.refused = !why.empty();
  }

  void tell_finished() {
    finish_limit_.reset();
    if (auto done = std::exchange(finished_, nullptr)) done();
  }

  // ---- carrying out ----------------------------------------------------------------------------------------------

  // A callback for the errand's answer that does nothing once the actor is gone.
  template <typename T, typename F>
  kube::Callback<T> then(Errand errand, F function) {
    busy_ = true;
    return [self = weak_from_this(), errand, function = std::move(function)](Result<T> result) {
      const auto impl = self.lock();
      if (!impl) return;
      impl->busy_ = false;
      function(std::move(result));
      impl->step_soon();
    };
  }

  void done(Errand errand) {
    backoffs_[static_cast<size_t>(errand)] = {};
    ++numbers_.errands[static_cast<size_t>(errand)].done;
    problems_[static_cast<size_t>(errand)].clear();
    // The API server answers: what could not reach it need not wait longer.
    for (Backoff& other : backoffs_) {
      if (std::exchange(other.away, false)) other.until = loop_.now();
    }
  }

  void failed(Errand errand, const Error& error) {
    ++numbers_.errands[static_cast<size_t>(errand)].failed;
    Backoff& backoff = backoffs_[static_cast<size_t>(errand)];
    const bool first = backoff.delay == Duration(0);
    // Somebody was faster: try again at once, a little apart from the others who were slower.
    const bool conflict = error.code == Code::kConflict || error.code == Code::kPreconditionFailed;
    const Duration most = conflict ? std::min<Duration>(settings_.retry_limit, seconds(2)) : settings_.retry_limit;
    const Duration least = conflict ? Duration(milliseconds(20)) : settings_.retry_first;
    backoff.delay = first ? least : std::min(backoff.delay * 2, most);
    Duration wait = from_seconds(to_seconds(backoff.delay) * (0.5 + 0.5 * random_.uniform()));
    backoff.away = !error.retry_after && (error.code == Code::kUnavailable || error.code == Code::kDeadlineExceeded);
    if (error.retry_after) wait = std::max(wait, Duration(*error.retry_after));
    backoff.until = loop_.now() + wait;
    if (conflict) return;
    problems_[static_cast<size_t>(errand)] = std::string(to_string(errand)) + ": " + error.message;
    if (first) log_.warning("the cluster could not be told", {{"errand", to_string(errand)}, {"error", error.message}});
  }

  // ---- the node --------------------------------------------------------------------------------------------------

  void change_node() {
    client_.get_raw(kube::Node::type(), {"", settings_.node}, then<kube::Payload>(Errand::kNode, [this](auto answer) {
                      if (!answer) return failed(Errand::kNode, answer.error());
                      const auto live = answer->template as<kube::Node>();
                      const auto tree = answer->json();
                      if (!live || !tree) return failed(Errand::kNode, (live ? tree.error() : live.error()));
                      seen(**live);
                      patch_node(**tree);
                    }));
  }

  // What was planned by the cache is planned again by what was just read.
  void patch_node(const Json& live) {
    const Instant now = loop_.now();
    const Plan again = plan(*findings_, standing_, settings_.act, now);
    if (!again.node) return done(Errand::kNode);
    const NodeChange change = *again.node;
    const NodePatch made = node_patch(change, live, now);
    kube::Patch patch;
    patch.body = made.body;
    client_.patch<kube::Node>({"", settings_.node}, std::move(patch),
                              then<kube::Ptr<kube::Node>>(Errand::kNode, [=, this](auto answer) {
                                if (!answer) return failed(Errand::kNode, answer.error());
                                done(Errand::kNode);
                                changed_node(change, made.kept);
                                seen(**answer);
                              }));
  }

  void changed_node(const NodeChange& change, bool kept) {
    const Instant now = loop_.now();
    const auto tell = [&](const std::string& reason, const std::string& note) {
      news_.push_back(
          event_about(standing_.node, reason + "/" + to_rfc3339(now, 3), "Normal", reason, "Uncordon", note, now));
    };
    if (change.cordon) {
      ++numbers_.cordons;
      const auto note = parse_cordon_note(*change.annotation);
      const auto fault = std::find_if(findings_->verdicts.begin(), findings_->verdicts.end(),
                                      [&](const Verdict& verdict) { return verdict.rule == note->rule; });
      log_.warning("the node is cordoned", {{"rule", note->rule}});
      if (fault != findings_->verdicts.end() && hooks_.cordoned) hooks_.cordoned(*fault, now - fault->since);
    } else if (change.uncordon && !kept) {
      ++numbers_.uncordons;
      log_.info("the node is healthy again and uncordoned");
      tell("Uncordoned", "healthy again");
    } else if (kept) {
      log_.info("the node is healthy again; somebody else has cordoned it meanwhile, so it stays so");
      tell("CordonKept", "healthy again; somebody else has cordoned the node meanwhile, so it stays cordoned");
    } else if (change.taint) {
      log_.info(*change.taint ? "the node is tainted" : "the node is healthy again; the taint is taken back");
    }
  }

  void write_condition(const kube::NodeCondition& condition) {
    Json json{{"type", condition.type},
              {"status", condition.status},
              {"reason", condition.reason},
              {"message", condition.message},
              {"lastTransitionTime", to_rfc3339(condition.last_transition)},
              {"lastHeartbeatTime", to_rfc3339(loop_.now())}};
    Json object{{"metadata", {{"name", settings_.node}, {"uid", standing_.node.metadata.uid}}},
                {"status", {{"conditions", Json::array({std::move(json)})}}}};
    // By apply, since a condition is one of a list that many write.
    client_.apply_raw(kube::Node::type(), std::move(object), {"", true, "status"},
                      then<kube::Payload>(Errand::kCondition, [this](auto answer) {
                        if (!answer) return failed(Errand::kCondition, answer.error());
                        done(Errand::kCondition);
                        standing_.condition_written = loop_.now();
                        if (const auto node = answer->template as<kube::Node>()) seen(**node);
                      }));
  }

  // ---- the budget ------------------------------------------------------------------------------------------------

  void read_budget() {
    client_.get_raw(api::CordonBudget::type(), kBudget, then<kube::Payload>(Errand::kReadBudget, [this](auto answer) {
                      if (!answer && answer.error().code != Code::kNotFound)
                        return failed(Errand::kReadBudget, answer.error());
                      standing_.budget.reset();
                      if (!answer && settings_.budget) return make_budget();
                      if (answer) took_budget(*answer);
                      count_agents();
                    }));
  }

  // By whom it is made first is all the same: what it says is the chart's.
  void make_budget() {
    api::CordonBudget budget;
    budget.metadata.name = kBudget.name;
    budget.spec = *settings_.budget;
    client_.create_raw(api::CordonBudget::type(), budget.encode(),
                       then<kube::Payload>(Errand::kReadBudget, [this](auto answer) {
                         if (!answer) return failed(Errand::kReadBudget, answer.error());
                         log_.info("CordonBudget default was absent and has been made");
                         took_budget(*answer);
                         count_agents();
                       }));
  }

  void took_budget(const kube::Payload& payload) {
    const auto tree = payload.json();
    if (!tree) return;
    Problems problems;
    standing_.budget = api::decode_cordon_budget(**tree, problems);
    if (!problems.empty()) log_.warning("the CordonBudget is not all understood", {{"problems", join(problems)}});
  }

  // How many nodes have or should have an agent: what the share is taken of.
  void count_agents() {
    const auto judged = [this] {
      standing_.budget_read = loop_.now();
      done(Errand::kReadBudget);
    };
    if (settings_.daemon_set.empty()) return judged();
    client_.get_raw(kDaemonSet, {settings_.daemon_set_ns, settings_.daemon_set},
                    then<kube::Payload>(Errand::kReadBudget, [this, judged](auto answer) {
                      int64_t agents = 0;
                      const auto tree = answer ? answer->json() : Result<const Json*>(answer.error());
                      if (!tree) {
                        log_.warning("the number of agents is not known; the budget's maxNodes alone decides",
                                     {{"error", tree.error().message}});
                      } else if (const Json* status = kube::fields::find(**tree, "status")) {
                        kube::fields::read(*status, "desiredNumberScheduled", agents);
                      }
                      standing_.agents = static_cast<uint32_t>(std::clamp<int64_t>(agents, 0, 1'000'000));
                      judged();
                    }));
  }

  // A token is taken on the version that was judged by; a certain fault's entry only counts, whatever is there.
  void write_budget(Errand errand, const api::Cordon& cordon) {
    api::CordonBudget entry;
    entry.metadata.name = kBudget.name;
    entry.cordons[settings_.node] = cordon;
    kube::Patch patch;
    patch.body["status"] = entry.encode()["status"];
    patch.subresource = "status";
    if (errand == Errand::kTakeToken) {
      patch.preconditions = {standing_.budget->metadata.uid, standing_.budget->metadata.resource_version};
    }
    client_.patch_raw(api::CordonBudget::type(), kBudget, std::move(patch),
                      then<kube::Payload>(errand, [=, this](auto answer) {
                        const bool absent = !answer && answer.error().code == Code::kNotFound;
                        if (!answer && errand == Errand::kTakeToken) standing_.budget_read.reset();
                        if (!answer && !(absent && errand == Errand::kCountCordon))
                          return failed(errand, answer.error());
                        done(errand);
                        if (answer) took_budget(*answer);
                        if (errand == Errand::kCountCordon) standing_.cordon_counted = cordon.time;
                      }));
  }

  // ---- events and NodeHealth -------------------------------------------------------------------------------------

  void write_event(kube::Event event) {
    const std::string name = event.metadata.name;
    const auto told = [this, name] {
      if (standing_.told.size() >= kMaxTold) standing_.told.clear();
      standing_.told.insert(name);
      if (!news_.empty() && news_.front().metadata.name == name) news_.pop_front();
    };
    if (!event_limit_.try_take(loop_.now())) {
      ++numbers_.events_dropped;
      told();
      return step_soon();
    }
    client_.create<kube::Event>(event, then<kube::Ptr<kube::Event>>(Errand::kEvent, [=, this](auto answer) {
                                  if (answer || answer.error().code == Code::kAlreadyExists) {
                                    done(Errand::kEvent);
                                    return told();
                                  }
                                  failed(Errand::kEvent, answer.error());
                                  if (answer.error().retryable()) return;
                                  problems_[static_cast<size_t>(Errand::kEvent)].clear();
                                  ++numbers_.events_dropped;
                                  told();
                                }));
  }

  api::NodeHealthSpec spec() const {
    const kube::Node& node = standing_.node;
    return {node.provider_id, node.metadata.uid, node.metadata.name};
  }

  void read_health() {
    const std::string name = api::node_health_name(spec());
    client_.get_raw(api::NodeHealth::type(), {"", name},
                    then<kube::Payload>(Errand::kReadHealth, [=, this](auto answer) {
                      if (!answer && answer.error().code != Code::kNotFound)
                        return failed(Errand::kReadHealth, answer.error());
                      done(Errand::kReadHealth);
                      standing_.health.reset();
                      if (answer) took_health(*answer);
                      standing_.health_read = name;
                      if (hooks_.health) hooks_.health(standing_.health ? &*standing_.health : nullptr);
                    }));
  }

  // What another version has written is taken as far as it is understood, and written over.
  void took_health(const kube::Payload& payload) {
    const auto tree = payload.json();
    if (!tree) return;
    Problems problems;
    standing_.health = api::decode_node_health(**tree, problems);
    if (!problems.empty()) log_.warning("the NodeHealth is not all understood", {{"problems", join(problems)}});
  }

  void write_health(const api::NodeHealth& wanted) {
    const auto wrote = [this](bool whole, auto answer) {
      if (!answer) {
        failed(Errand::kHealth, answer.error());
        // Somebody made it, deleted it or put another in its place: read it again.
        if (!answer.error().retryable()) standing_.health_read.clear();
        return;
      }
      done(Errand::kHealth);
      took_health(*answer);
      if (whole) standing_.health_written = loop_.now();
    };
    if (!standing_.health) {
      api::NodeHealth fresh;
      fresh.metadata.name = wanted.metadata.name;
      fresh.spec = wanted.spec;
      // Its status is a subresource, so it comes with the next write.
      return client_.create_raw(
          api::NodeHealth::type(), fresh.encode(),
          then<kube::Payload>(Errand::kHealth, [wrote](auto answer) { wrote(false, std::move(answer)); }));
    }
    kube::Patch patch;
    const bool same_spec = standing_.health->spec == wanted.spec;
    if (same_spec) {
      patch.body = health_patch(wanted, *standing_.health);
      patch.subresource = "status";
    } else {
      patch.body = {{"spec", wanted.encode()["spec"]}};
      patch.preconditions.uid = standing_.health->metadata.uid;
    }
    client_.patch_raw(api::NodeHealth::type(), {"", wanted.metadata.name}, std::move(patch),
                      then<kube::Payload>(Errand::kHealth, [=](auto answer) { wrote(same_spec, std::move(answer)); }));
  }

  Loop& loop_;
  const ActorSettings settings_;
  const ActorHooks hooks_;
  Logger log_;
  Random random_;
  kube::Client client_;
  kube::Informer<kube::Node> informer_;
  std::optional<Findings> findings_;
  bool has_node_ = false;
  Standing standing_;
  bool busy_ = false;
  bool posted_ = false;
  std::array<Backoff, kErrands> backoffs_;
  std::deque<kube::Event> news_;  // that no plan knows of: what was taken back
  kube::RateLimiter event_limit_{kEventRate, kEventBurst};
  std::array<std::string, kErrands> problems_;  // of those that fail
  ActorNumbers numbers_;
  Loop::TimerPtr timer_;
  Loop::TimerPtr finish_limit_;
  std::function<void()> finished_;
};

Actor::Actor(Loop& loop, kube::Transport& transport, uint64_t seed, ActorSettings settings, ActorHooks hooks,
             Logger log)
    : impl_(std::make_shared<Impl>(loop, transport, seed, std::move(settings), std::move(hooks), std::move(log))) {}
Actor::~Actor() { impl_->stop(); }

void Actor::start() { impl_->start(); }
void Actor::found(Findings findings) { impl_->found(std::move(findings)); }
void Actor::read_health_again() { impl_->read_health_again(); }
void Actor::finish(Duration limit, std::function<void()> done) { impl_->finish(limit, std::move(done)); }
std::string Actor::not_ready() const { return impl_->not_ready(); }
ActorNumbers Actor::numbers() const { return impl_->numbers(); }
const kube::Node* Actor::node() const { return impl_->node(); }

}  // namespace pitcrew::agent
