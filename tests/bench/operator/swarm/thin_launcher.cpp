#include "tests/bench/operator/swarm/thin_launcher.hpp"

#include "lib/api/training_job.hpp"
#include "lib/base/progress_page.hpp"

namespace pitcrew::swarm {

using namespace api::channel;

namespace {

constexpr Duration kBeat = seconds(1);         // of progress, as the real launcher's
constexpr Duration kTokenLives = minutes(45);  // of the hour that it is asked for
constexpr Duration kTokenRetry = seconds(1);
constexpr size_t kMostQueued = 64 * 1024;
constexpr uint32_t kPeerPort = 7000;  // nobody calls: there are no copies to hold
constexpr int kSegmentationFault = 11;

// An epoch's message without its rows, which are the same for all launchers and come last: hundreds of launchers in
// one process would be busy with reading nothing else, where each real one has a node to itself.
std::string without_rows(const std::string& message) {
  static constexpr std::string_view kRows = ",\"table\":[{";
  const size_t rows = message.find(kRows);
  return rows == std::string::npos ? message : message.substr(0, rows) + ",\"table\":[]}";
}

}  // namespace

void Gang::join(ThinLauncher& launcher) {
  members_.insert(&launcher);
  if (whole_ || members_.size() < rows_.size()) return;
  whole_ = true;
  for (ThinLauncher* member : members_) member->begin_training();
}

void Gang::leave(ThinLauncher& launcher) { members_.erase(&launcher); }

ThinLauncher::ThinLauncher(Surroundings& world, std::shared_ptr<const kube::Pod> pod)
    : world_(world), pod_(std::move(pod)), delayed_(world.loop) {
  if (const OwnerReference* owner = pod_->metadata.controller()) job_uid_ = owner->uid;
  boot_ = "swarm-" + std::to_string(world.random());
  update(pod_);
  ask_for_token();
}

ThinLauncher::~ThinLauncher() { leave_gang(); }

void ThinLauncher::leave_gang() {
  if (gang_) gang_->leave(*this);
  gang_.reset();
}

void ThinLauncher::update(std::shared_ptr<const kube::Pod> pod) {
  pod_ = std::move(pod);
  const auto found = pod_->metadata.annotations.find(api::annotation::kChannel);
  if (found == pod_->metadata.annotations.end() || found->second == config_text_) return;
  auto config = decode_config(found->second);
  if (!config) return world_.log.error("channel.json can't be read", {{"error", config.error().message}});
  config_text_ = found->second;
  config_ = *std::move(config);
  route();
}

void ThinLauncher::ask_for_token() {
  token_timer_.reset();
  world_.ask_token(*pod_);
}

void ThinLauncher::take_token(Result<std::string> token) {
  if (!token) {
    world_.log.warning("no token; asking again", {{"pod", pod_->metadata.name}, {"error", token.error().message}});
    token_timer_ = world_.loop.after(kTokenRetry, [this] { ask_for_token(); });
    return;
  }
  token_ = *std::move(token);
  token_timer_ = world_.loop.after(kTokenLives, [this] { ask_for_token(); });
  connect();
}

net::ReconnectSettings ThinLauncher::settings() const {
  net::ReconnectSettings settings;
  for (const std::string& advertised : config_.addresses) {
    if (auto address = world_.route(advertised)) settings.addresses.push_back(*std::move(address));
  }
  settings.trust = net::TlsTrust{config_.ca_bundle, config_.server_name};
  settings.path = kPath;
  settings.headers = [this] { return net::Headers{{"Authorization", "Bearer " + token_}}; };
  settings.max_message_bytes = kMaxToLauncher;
  settings.max_queue_bytes = kMostQueued;
  return settings;
}

void ThinLauncher::route() {
  if (client_) {
    client_->set_settings(settings());
  } else {
    connect();
  }
}

void ThinLauncher::connect() {
  if (client_ || token_.empty() || config_text_.empty()) return;
  net::ReconnectHandler handler;
  handler.on_open = [this](const net::Address&) {
    hello();
    world_.changed();
  };
  handler.on_message = [this](const std::string& message) { received(message); };
  handler.on_close = [this](const net::WebSocketClose& close) {
    world_.log.debug("closed", {{"pod", pod_->metadata.name}, {"code", close.code}, {"reason", close.reason}});
    world_.changed();
  };
  handler.on_failed_attempt = [this](const net::Address& address, const net::WebSocketClose& close) {
    world_.log.debug("no connection",
                     {{"pod", pod_->metadata.name}, {"address", net::to_string(address)}, {"reason", close.reason}});
  };
  client_ = std::make_unique<net::ReconnectingClient>(world_.loop, settings(), std::move(handler),
                                                      world_.random.split(), Logger());
}

void ThinLauncher::hello() {
  Hello hello;
  hello.job_uid = job_uid_;
  hello.pod_name = pod_->metadata.name;
  hello.pod_uid = pod_->metadata.uid;
  hello.node = pod_->node_name;
  hello.boot = boot_;
  hello.address = pod_->pod_ip;
  hello.peer_port = kPeerPort;
  hello.seen = seen_;
  hello.running = running_;
  say(hello);
  for (const Exited& exit : exits_) say(exit);
  progress();
}

void ThinLauncher::say(const FromLauncher& message) {
  if (connected()) client_->send(encode(message));
}

void ThinLauncher::received(const std::string& text) {
  const auto message = decode_to_launcher(without_rows(text));
  if (!message) return world_.log.error("a message can't be read", {{"error", message.error().message}});
  if (const auto* epoch = std::get_if<Epoch>(&*message)) return take(*epoch, text);
  if (const auto* stop = std::get_if<Stop>(&*message)) return take(*stop);
  if (const auto* save = std::get_if<Save>(&*message)) {
    say(Saved{seen_, step_, true, "/checkpoints/step-" + std::to_string(step_.value) + "-c1", 1, save->request});
  } else if (const auto* diagnose = std::get_if<Diagnose>(&*message)) {
    say(Stacks{diagnose->request, "#0 swarm"});
  } else if (const auto* finish = std::get_if<Finish>(&*message)) {
    world_.finished(pod_->metadata.uid, finish->success);
  }
}

void ThinLauncher::take(const Epoch& epoch, const std::string& message) {
  if (epoch.id <= seen_) return;
  leave_gang();
  seen_ = epoch.id;
  slot_ = epoch.slot;
  exits_.clear();
  training_ = false;
  running_ = slot_.has_value();
  delayed_.clear();
  beat_timer_.reset();
  if (running_) {
    resumed_.reset();
    if (epoch.resume) resumed_ = epoch.resume->step;
    step_ = resumed_.value_or(Step(0));
    gang_ = world_.gang(job_uid_, epoch.id, message);
    if (slot_->value < gang_->rows().size()) first_rank_ = gang_->rows()[slot_->value].first_rank;
    delayed_.after(world_.rank_start, [this] { gang_->join(*this); });
  }
  world_.changed();
}

void ThinLauncher::begin_training() {
  training_ = true;
  beat();
  world_.changed();
}

void ThinLauncher::beat() {
  if (gang_->steps()) step_ = Step(step_.value + 1);
  progress();
  beat_timer_ = world_.loop.after(kBeat, [this] { beat(); });
}

void ThinLauncher::progress() {
  if (!training_) return;
  Progress progress;
  progress.epoch = seen_;
  progress.step = step_;
  progress.phase = page::to_string(page::Phase::kTraining);
  progress.resumed_step = resumed_;
  progress.resumed_source = resumed_ ? "file system" : "none";
  if (slot_ == Slot(0)) progress.loss = 2.5;
  say(progress);
}

void ThinLauncher::take(const Stop& stop) {
  if (stop.epoch < seen_ || !running_) return;
  leave_gang();
  running_ = training_ = false;
  delayed_.clear();
  beat_timer_.reset();
  delayed_.after(world_.rank_end, [this, save = stop.save] {
    if (save) {
      if (slot_ == Slot(0))
        say(Saved{seen_, step_, true, "/checkpoints/step-" + std::to_string(step_.value) + "-c1", 1, ""});
      say(Stopped{seen_, true});
    } else {
      say(Aborted{seen_, true, ""});
    }
  });
  world_.changed();
}

void ThinLauncher::crash() {
  Exited exit;
  exit.epoch = seen_;
  exit.rank = first_rank_;
  exit.kind = ExitKind::kSignaled;
  exit.code = kSegmentationFault;
  exit.reason = "killed by SIGSEGV";
  exit.step = step_;
  exits_.push_back(exit);
  leave_gang();
  running_ = training_ = false;
  beat_timer_.reset();
  say(exit);
  world_.changed();
}

}  // namespace pitcrew::swarm
