#include "lib/kube/runtime/leader_elector.hpp"

namespace pitcrew::kube {
namespace {

// A lease has a client of its own, whose answers come while they can still be of use.
ClientSettings client_settings(const LeaderElectionSettings& settings) {
  ClientSettings client;
  client.timeout = settings.retry_period * 2;
  client.attempts = 1;
  client.read_attempts = 1;
  client.rate = 10;
  client.burst = 20;
  return client;
}

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

Result<Lease> by_value(const Result<Ptr<Lease>>& lease) {
  if (!lease) return lease.error();
  return **lease;
}

}  // namespace

LeaderElector::LeaderElector(Loop& loop, Transport& transport, uint64_t seed, LeaderElectionSettings settings,
                             Callbacks callbacks, Logger log)
    : loop_(loop),
      random_(seed),
      settings_(std::move(settings)),
      callbacks_(std::move(callbacks)),
      log_(log.with({{"identity", settings_.identity}})),
      client_(loop, transport, random_(), client_settings(settings_)),
      election_(settings_),
      alive_(std::make_shared<bool>(true)) {
  const Status valid = settings_.validate();
  PITCREW_INVARIANT(valid.ok(), valid.ok() ? "" : valid.error().message);
}

LeaderElector::~LeaderElector() = default;

void LeaderElector::start() { step(LeaderElection::Woken{}); }

void LeaderElector::release(std::function<void()> released) {
  released_ = std::move(released);
  step(LeaderElection::ReleaseAsked{});
}

void LeaderElector::step(const LeaderElection::Input& input) {
  const std::weak_ptr<bool> alive = alive_;
  for (const LeaderElection::Action& action : election_.step(input, loop_.now(), random_.uniform())) {
    carry_out(action);
    if (alive.expired()) return;  // a callback has ended us
  }
}

void LeaderElector::carry_out(const LeaderElection::Action& action) {
  const auto written = [this](const Result<Ptr<Lease>>& lease) { step(LeaderElection::Written{by_value(lease)}); };
  std::visit(Overloaded{
                 [&](const LeaderElection::Get&) {
                   client_.get<Lease>(settings_.lease, [this](const Result<Ptr<Lease>>& lease) {
                     if (lease) return step(LeaderElection::Read{std::optional<Lease>(**lease)});
                     if (lease.error().code == Code::kNotFound)
                       return step(LeaderElection::Read{std::optional<Lease>()});
                     step(LeaderElection::Read{lease.error()});
                   });
                 },
                 [&](const LeaderElection::Create& create) { client_.create<Lease>(create.lease, written); },
                 [&](const LeaderElection::Update& update) { client_.update<Lease>(update.lease, written); },
                 [&](const LeaderElection::Sleep& sleep) {
                   timer_ = loop_.after(sleep.duration, [this] { step(LeaderElection::Woken{}); });
                 },
                 [&](const LeaderElection::StartLeading& start) {
                   log_.info("leading", {{"term", start.term.value}});
                   if (callbacks_.on_started) callbacks_.on_started(start.term);
                 },
                 [&](const LeaderElection::StopLeading& stop) {
                   log_.warning("no longer leading", {{"reason", stop.reason}});
                   if (callbacks_.on_stopped) callbacks_.on_stopped(stop.reason);
                 },
                 [&](const LeaderElection::Released&) {
                   timer_.reset();
                   // Never inside release().
                   if (released_) loop_.post(std::exchange(released_, nullptr));
                 },
             },
             action);
}

}  // namespace pitcrew::kube
