#include "cli/run/session.hpp"

#include <algorithm>
#include <filesystem>

#include <signal.h>
#include <unistd.h>

#include "lib/api/node_health.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/net/crypto.hpp"
#include "lib/net/tls.hpp"
#include "operator/channel/websocket_channel.hpp"

namespace pitcrew::cli {
namespace {

// A planned stop that takes longer than this goes on without having saved.
constexpr Duration kSaveWithin = minutes(2);
constexpr Duration kCertificateLife = hours(24 * 365);
constexpr Duration kWindDownWithin = seconds(20);
constexpr Duration kBootWithin = seconds(60);

// What survives this run's end: pods, nodes and the lists of who is alive do not.
bool kept(const Json& object) {
  const auto kind = object.find("kind");
  return kind != object.end() && (*kind == "TrainingJob" || *kind == "Lease");
}

}  // namespace

Session::Session(net::AsioLoop& loop, const RunOptions& options, RunFolder& folder, api::TrainingJob job,
                 ChaosPlan chaos, View& view, Logger log)
    : loop_(loop),
      options_(options),
      folder_(folder),
      wanted_(std::move(job)),
      chaos_(std::move(chaos)),
      view_(view),
      log_(std::move(log)),
      history_(view, folder.events()),
      random_(net::random_seed()) {}

Session::~Session() = default;

Result<int> Session::run() {
  PITCREW_TRY(start());
  loop_.run_until([this] { return code_.has_value(); }, hours(24 * 3650));
  wind_down();
  if (!error_.empty()) return Error(Code::kInvalidArgument, error_);
  return *code_;
}

Status Session::start() {
  const std::string programs = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  const std::string launcher = programs + "/pitcrew-launcher";
  if (access(launcher.c_str(), X_OK) != 0) {
    return Error(
        Code::kNotFound,
        launcher + " is missing; build it beside pitcrew: cmake --build build/release --target pitcrew-launcher");
  }
  cluster_ = std::make_unique<LocalCluster>(loop_, folder_, LocalClusterSettings{options_.nodes, programs, launcher},
                                            random_.split(), log_);
  cluster_->server().register_type(
      api::TrainingJob::type(), {.status_subresource = true, .admission = [](const Json* old, Json& object) -> Status {
                                   PITCREW_ASSIGN(const auto job, api::TrainingJob::decode(object));
                                   if (old == nullptr) return {};
                                   PITCREW_ASSIGN(const auto before, api::TrainingJob::decode(*old));
                                   Problems problems;
                                   api::validate_update(before, job, problems);
                                   if (problems.empty()) return {};
                                   return Error(Code::kInvalidArgument, join(problems));
                                 }});
  cluster_->server().register_type(api::NodeHealth::type(), {});
  PITCREW_TRY(restore());
  cluster_->server().add_observer([this](const local::Change& change) {
    // Epochs and terms must go on where they were, whatever happens to this process.
    if (change.resource == api::TrainingJob::type() && !std::exchange(save_due_, true)) loop_.post([this] { save(); });
  });

  const net::Validity validity{loop_.now() - minutes(5), loop_.now() + kCertificateLife};
  PITCREW_ASSIGN(const auto authority, net::CertificateAuthority::create("pitcrew run", validity));
  PITCREW_ASSIGN(const auto identity, authority.issue({{"pitcrew-channel"}, {"127.0.0.1"}}, validity));
  PITCREW_ASSIGN(channel_, control::WebSocketChannelServer::create(
                               loop_, {.identity = identity, .ca_bundle = authority.certificate_pem()}, log_));

  control::OperatorSettings settings;
  settings.identity = "pitcrew-run-" + folder_.run_id();
  settings.launcher_image = "pitcrew-launcher";
  settings.epoch_secret = net::random_bytes(32);
  control::OperatorHooks hooks;
  hooks.status_written = [this](const api::TrainingJob& job) { on_status(job); };
  hooks.launcher_message = [this](const ObjectKey&, const api::channel::FromLauncher& message) { on_message(message); };
  if (options_.serve) {
    PITCREW_ASSIGN(serving_, Serving::open(loop_, cluster_->server(), folder_, log_));
    hooks.recovered = [this](const api::TrainingJob& job, const api::Recovery& recovery) {
      serving_->metrics().recovered(job, recovery);
    };
    hooks.count = [this](std::string_view name, double amount) { serving_->metrics().count(name, amount); };
  }
  kube::Transport& transport = serving_ ? serving_->counted(cluster_->transport()) : cluster_->transport();
  operator_ = std::make_unique<control::Operator>(loop_, transport, *channel_, random_.split(), log_, settings, hooks);
  if (serving_) serving_->metrics().watch(operator_.get());
  client_ = std::make_unique<kube::Client>(loop_, cluster_->transport(), random_());

  auto signals = loop_.on_signal({SIGINT, SIGTERM, SIGHUP}, [this](int) { interrupt(); });
  if (!signals) return signals.error();
  signals_ = std::move(*signals);

  history_.note(
      loop_.now(),
      "job " + wanted_.metadata.name + ": " + std::to_string(wanted_.spec.replicas) + " replicas and " +
          std::to_string(wanted_.spec.spares) + (wanted_.spec.spares == 1 ? " spare on " : " spares on ") +
          std::to_string(options_.nodes) + " simulated nodes; everything is in " + folder_.path(),
      {{"event", "start"}, {"job", wanted_.metadata.name}, {"nodes", options_.nodes}, {"folder", folder_.path()}});
  cluster_->start();
  if (!loop_.run_until([this] { return cluster_->up() || code_; }, kBootWithin)) {
    return Error(Code::kUnavailable, "the simulated nodes did not start within " + pitcrew::to_string(kBootWithin) +
                                         "; see " + folder_.logs());
  }
  operator_->start();
  apply();
  tick();
  return {};
}

Status Session::restore() {
  PITCREW_ASSIGN(Json stored, folder_.load_objects());
  if (stored.is_null()) return {};
  // Whoever led is dead: the folder's lock says so. Nobody has to wait for its lease to expire, and the term goes on.
  for (Json& object : stored["objects"]) {
    if (object.value("kind", "") == kube::Lease::type().kind) object["spec"]["holderIdentity"] = "";
  }
  Status restored = cluster_->server().restore(stored);
  if (!restored) return restored.error().with_context(folder_.objects());
  return {};
}

void Session::save() {
  save_due_ = false;
  Json snapshot = cluster_->server().snapshot();
  if (snapshot.contains("objects") && snapshot["objects"].is_array()) {
    Json& objects = snapshot["objects"];
    objects.erase(std::remove_if(objects.begin(), objects.end(), [](const Json& object) { return !kept(object); }),
                  objects.end());
  }
  if (const Status saved = folder_.save_objects(snapshot); !saved) {
    log_.error("the job's state could not be saved", {{"error", saved.error().message}});
  }
}

void Session::apply() {
  const ObjectKey key = wanted_.metadata.key();
  client_->get<api::TrainingJob>(key, [this](Result<kube::Ptr<api::TrainingJob>> stored) {
    if (stored) return update(**stored);
    client_->create<api::TrainingJob>(wanted_, [this](Result<kube::Ptr<api::TrainingJob>> created) {
      if (!created) return finish(2, created.error().message);
      job_ = **created;
    });
  });
}

// The job is there from an earlier run of the same command: it goes on, with what the manifest says now.
void Session::update(const api::TrainingJob& stored) {
  job_ = stored;
  if (api::terminal(stored.status.phase)) {
    history_.note(loop_.now(),
                  "this job has ended already (" + std::string(api::to_string(stored.status.phase)) + "); remove " +
                      folder_.path() + " to run it again",
                  {{"event", "ended"}});
    return finish(stored.status.phase == api::Phase::kSucceeded ? 0 : 1);
  }
  Problems problems;
  api::TrainingJob before = stored;
  api::validate_update(before, wanted_, problems);
  if (!problems.empty()) return finish(2, join(problems) + "; or start anew with another --dir");
  api::TrainingJob next = stored;
  next.spec = wanted_.spec;
  history_.note(loop_.now(),
                "going on with the job of an earlier run, at epoch " + std::to_string(stored.status.epoch.number.value),
                {{"event", "resume"}});
  client_->update<api::TrainingJob>(next, [this](Result<kube::Ptr<api::TrainingJob>> updated) {
    if (updated) {
      job_ = **updated;
    } else if (updated.error().code == Code::kConflict) {
      apply();  // the operator wrote in between
    } else {
      finish(2, updated.error().message);
    }
  });
}

void Session::on_status(const api::TrainingJob& job) {
  job_ = job;
  history_.status(loop_.now(), job);
  const api::Phase phase = job.status.phase;
  if (api::terminal(phase)) finish(phase == api::Phase::kSucceeded ? 0 : 1);
  if (stopping_ == Stopping::kSaving && phase == api::Phase::kSuspended) {
    history_.note(loop_.now(), "saved and stopped; the same command goes on from here", {{"event", "stopped"}});
    finish(0);
  }
}

void Session::on_message(const api::channel::FromLauncher& message) {
  const auto* progress = std::get_if<api::channel::Progress>(&message);
  if (progress == nullptr || progress->epoch.number < job_.status.epoch.number) return;
  live_step_ = progress->step;
  live_rate_ = progress->tokens_per_second;
  if (progress->loss) live_loss_ = progress->loss;
  if (progress->total_steps > 0) live_total_ = progress->total_steps;
  if (progress->phase == "training") make_failures(progress->step);
}

void Session::make_failures(Step step) {
  // One failure at a time: the next waits until the job trains again, or a person could not tell them apart.
  if (stopping_ != Stopping::kNo || job_.status.phase != api::Phase::kRunning) return;
  const auto event = chaos_.due(step);
  if (!event) return;
  const std::string done = make_failure(*event);
  history_.note(
      loop_.now(),
      "chaos: " + std::string(to_string(event->kind)) + " at step " + std::to_string(step.value) + ": " + done,
      {{"event", "chaos"}, {"kind", to_string(event->kind)}, {"step", step.value}, {"done", done}});
}

std::string Session::make_failure(const ChaosEvent& event) {
  if (job_.status.slots.empty()) return "nothing to hit: the job has no replicas now";
  // Nodes are lost and hang at the far end of the table; processes are killed at its beginning, where rank 0 is.
  const bool far = event.kind == ChaosKind::kKillNode || event.kind == ChaosKind::kHang;
  const api::SlotStatus& slot = far ? job_.status.slots.back() : job_.status.slots.front();
  const std::string where = " on " + slot.node;
  if (event.kind == ChaosKind::kKillNode) {
    return cluster_->kill_node(slot.node) ? "everything" + where + " stands still, its memory is lost"
                                          : slot.node + " is off already";
  }
  const bool launcher = event.kind == ChaosKind::kKillLauncher;
  const int pid = launcher ? cluster_->launcher_of(slot.node) : cluster_->rank_of(slot.node, slot.first_rank.value);
  if (pid < 0) return "nothing to hit" + where;
  const int number = event.kind == ChaosKind::kHang ? SIGSTOP : SIGKILL;
  ::kill(pid, number);
  const std::string what = launcher ? "the launcher" : "rank " + std::to_string(slot.first_rank.value);
  return (number == SIGSTOP ? "SIGSTOP to " : "SIGKILL to ") + what + where;
}

void Session::interrupt() {
  if (stopping_ != Stopping::kNo || !operator_) {
    history_.note(loop_.now(), "stopping at once; what was not saved is lost", {{"event", "stop-now"}});
    stopping_ = Stopping::kNow;
    return finish(130);
  }
  stopping_ = Stopping::kSaving;
  history_.note(loop_.now(), "saving and stopping (once more to stop at once)", {{"event", "stopping"}});
  client_->patch<api::TrainingJob>(wanted_.metadata.key(), {.body = {{"spec", {{"lifecycle", {{"suspend", true}}}}}}},
                                   [this](Result<kube::Ptr<api::TrainingJob>> patched) {
                                     if (!patched) finish(130, "suspend the job: " + patched.error().message);
                                   });
  stop_deadline_ = loop_.after(kSaveWithin, [this] {
    finish(130, "the job did not save within " + pitcrew::to_string(kSaveWithin) + "; see " + folder_.logs());
  });
}

Standing Session::standing() const {
  const api::TrainingJobStatus& status = job_.status;
  Standing standing;
  standing.job = wanted_.metadata.name;
  standing.phase = api::to_string(status.phase);
  const bool live = status.phase == api::Phase::kRunning && live_step_.value > 0;
  standing.step = live ? live_step_.value : status.progress.step.value_or(Step(0)).value;
  standing.total_steps = live_total_ > 0 ? live_total_ : status.progress.total_steps;
  standing.loss = live_loss_ ? live_loss_ : status.progress.loss;
  standing.tokens_per_second = live ? live_rate_ : 0;
  standing.ready = status.ready;
  standing.replicas = wanted_.spec.replicas;
  standing.spares = status.spare;
  standing.goodput = status.goodput.ratio();
  standing.recoveries = history_.recoveries().size();
  return standing;
}

void Session::tick() {
  view_.standing(loop_.now(), standing());
  tick_ = loop_.after(milliseconds(500), [this] { tick(); });
}

void Session::finish(int code, const std::string& error) {
  if (code_) return;
  code_ = code;
  error_ = error;
}

// Launchers of a finished job end by themselves; then the operator stops in order, then the nodes go.
void Session::wind_down() {
  tick_.reset();
  stop_deadline_.reset();
  if (operator_ && stopping_ != Stopping::kNow) {
    if (api::terminal(job_.status.phase)) {
      loop_.run_until(
          [this] {
            bool running = false;
            cluster_->server().for_each(kube::Pod::type(), [&](const kube::Payload& payload) {
              const auto pod = payload.as<kube::Pod>();
              running = running || (pod && !(*pod)->ended() && cluster_->alive((*pod)->node_name));
            });
            return !running;
          },
          kWindDownWithin);
    }
    bool stopped = false;
    operator_->stop([&stopped] { stopped = true; });
    loop_.run_until([&stopped] { return stopped; }, kWindDownWithin);
  }
  if (cluster_) {
    save();
    if (serving_) serving_->metrics().watch(nullptr);
    operator_.reset();
    serving_.reset();
    channel_.reset();
    client_.reset();
    cluster_->stop();
  }
  if (!error_.empty()) return;
  const Json summary = report();
  history_.note(loop_.now(),
                std::string(api::to_string(job_.status.phase)) + " after " +
                    std::to_string(summary["steps"].get<uint64_t>()) + " steps and " +
                    std::to_string(history_.recoveries().size()) + " recoveries",
                {{"event", "end"}, {"report", summary}});
}

Json Session::report() const { return make_report(job_, history_.recoveries(), folder_.steps()); }

std::string Session::recoveries_for_people() const {
  return history_.recoveries().empty() ? "" : recovery_table(history_.recoveries());
}

}  // namespace pitcrew::cli
