#include "operator/app/program.hpp"

namespace pitcrew::control {
namespace {

ChannelKeeperSettings keeper_settings(const OperatorConfig& config, const OperatorPlace& place,
                                      const OperatorProgramSettings& program) {
  ChannelKeeperSettings settings;
  settings.ns = place.ns;
  settings.secret = config.channel_secret;
  settings.epoch_secret = config.epoch_secret;
  settings.service = config.channel_service;
  settings.port = config.channel_port;
  settings.address = config.advertise_address.empty() ? place.pod_ip : config.advertise_address;
  settings.pod_name = place.identity;
  settings.authority = config.channel_ca;
  settings.look_every = program.look_every;
  return settings;
}

}  // namespace

OperatorProgram::OperatorProgram(net::AsioLoop& loop, kube::Transport& transport, kube::Transport& lease,
                                 OperatorConfig config, OperatorPlace place, OperatorProgramSettings settings,
                                 Random random, Logger log)
    : loop_(loop),
      config_(std::move(config)),
      place_(std::move(place)),
      settings_(std::move(settings)),
      random_(random),
      log_(std::move(log)),
      transport_(loop, transport, count()),
      lease_transport_(loop, lease, count()) {}

CountingTransport::Tell OperatorProgram::count() {
  return [this](const kube::Request& request, const std::string& code, Duration took) {
    metrics_.request(request, code, took);
  };
}

OperatorProgram::~OperatorProgram() { metrics_.watch(nullptr); }

Status OperatorProgram::start() {
  if (config_.advertise_address.empty() && place_.pod_ip.empty()) {
    return Error(Code::kInvalidArgument,
                 "advertiseAddress: is missing and POD_IP is not set; set POD_IP from status.podIP in the pod's "
                 "environment, or give the address that launchers reach this replica at");
  }
  PITCREW_ASSIGN(endpoints_, net::ProgramEndpoints::listen(
                                 loop_, settings_.listen_host, config_.metrics_port, config_.health_port,
                                 metrics_.registry(), [this] { return not_ready(); }, log_));
  keeper_ =
      std::make_unique<ChannelKeeper>(loop_, transport_, random_(), keeper_settings(config_, place_, settings_),
                                      ChannelKeeper::Callbacks{[this] { open(); }, [this] { trust_changed(); }}, log_);
  keeper_->start();
  return {};
}

void OperatorProgram::open() {
  if (stopping_) return;
  if (const Status opened = open_channel(); !opened) {
    log_.error("the channel can't be opened", {{"error", opened.error().message}});
    return finish(kExitFailed);
  }
  OperatorSettings settings = operator_settings(config_, place_);
  settings.epoch_secret = keeper_->epoch_secret();
  settings.lease_transport = &lease_transport_;
  OperatorHooks hooks;
  hooks.leadership = [this](bool leading, uint64_t term) { leadership(leading, term); };
  hooks.lease_lost = [this](const std::string& reason) {
    log_.error("the lease is lost: ending at once, since somebody else may lead already", {{"reason", reason}});
    finish(kExitLeaseLost);
  };
  webhook_ = std::make_unique<Webhook>(loop_);
  hooks.post = [this](const std::string& url, const std::string& body, std::function<void(Status)> done) {
    webhook_->post(url, body, std::move(done));
  };
  hooks.recovered = [this](const api::TrainingJob& job, const api::Recovery& recovery) {
    metrics_.recovered(job, recovery);
  };
  hooks.count = [this](std::string_view name, double amount) { metrics_.count(name, amount); };
  operator_.emplace(loop_, transport_, *channel_, random_.split(), log_, std::move(settings), std::move(hooks));
  metrics_.watch(&*operator_);
  operator_->start();
  log_.info("started", {{"channel", net::to_string(channel_->address())}, {"identity", place_.identity}});
}

Status OperatorProgram::open_channel() {
  WebSocketChannelSettings settings;
  settings.address = {settings_.listen_host, static_cast<uint16_t>(config_.channel_port)};
  settings.identity = keeper_->trust().identity;
  settings.ca_bundle = keeper_->trust().ca_bundle;
  settings.server_name = kChannelServerName;
  settings.advertised = keeper_->trust().addresses;
  PITCREW_ASSIGN(channel_, WebSocketChannelServer::create(loop_, std::move(settings), log_));
  keeper_->set_port(channel_->address().port);
  return {};
}

void OperatorProgram::trust_changed() {
  if (!channel_) return;
  const ChannelTrust& trust = keeper_->trust();
  if (const Status shown = channel_->set_identity(trust.identity, trust.ca_bundle); !shown) {
    log_.error("the channel goes on with its old certificate", {{"error", shown.error().message}});
  }
  channel_->set_advertised(trust.addresses);
}

void OperatorProgram::leadership(bool leading, uint64_t term) {
  log_.info(leading ? "leading" : "not leading any more", {{"term", term}});
  if (leading) {
    keeper_->lead(Term(term));
  } else {
    keeper_->step_down();
  }
}

std::string OperatorProgram::not_ready() const {
  if (stopping_) return "stopping";
  if (!operator_) {
    return keeper_ && !keeper_->problem().empty() ? keeper_->problem()
                                                  : "the channel's Secrets and Service are not read yet";
  }
  return operator_->ready() ? "" : "the caches of jobs, pods and nodes are not filled yet";
}

net::Address OperatorProgram::metrics_address() const { return endpoints_.metrics_address(); }
net::Address OperatorProgram::channel_address() const { return channel_ ? channel_->address() : net::Address{}; }

void OperatorProgram::stop() {
  if (std::exchange(stopping_, true)) return finish(kExitFailed);
  if (!operator_) return finish(kExitStopped);
  stop_limit_ = loop_.after(settings_.stop_within, [this] {
    log_.error("the stop took too long; the lease runs out by itself",
               {{"limit", pitcrew::to_string(settings_.stop_within)}});
    finish(kExitFailed);
  });
  operator_->stop([this] { finish(kExitStopped); });
}

void OperatorProgram::finish(int code) {
  if (exit_code_) return;
  exit_code_ = code;
  stop_limit_.reset();
  loop_.stop();
}

}  // namespace pitcrew::control
