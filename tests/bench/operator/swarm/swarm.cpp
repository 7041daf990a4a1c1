#include "tests/bench/operator/swarm/swarm.hpp"

#include <algorithm>

#include "lib/api/training_job.hpp"

namespace pitcrew::swarm {
namespace {

constexpr int kTokenSeconds = 3600;
const ResourceType& service_account_type() {
  static const ResourceType kType{"", "v1", "ServiceAccount", "serviceaccounts", true};
  return kType;
}

}  // namespace

Json to_json(const Census& census) {
  return {{"pods", census.pods},
          {"running", census.running},
          {"connected", census.connected},
          {"in_epoch", census.in_epoch},
          {"training", census.training},
          {"term", census.epoch.term.value},
          {"epoch", census.epoch.number.value},
          {"seen", census.seen},
          {"ended", census.ended}};
}

Swarm::Swarm(net::AsioLoop& loop, kube::Transport& transport, SwarmSettings settings, uint64_t seed,
             std::function<void(const Census&)> report, Logger log)
    : loop_(loop),
      settings_(std::move(settings)),
      random_(seed),
      log_(std::move(log)),
      report_(std::move(report)),
      world_{loop,
             random_,
             log_,
             [this](const kube::Pod& pod) { ask_token(pod); },
             [this](const std::string&) { return leader_; },
             [this](const std::string& job_uid, EpochId epoch, const std::string& message) {
               return gang(job_uid, epoch, message);
             },
             [this] { changed(); },
             [this](const std::string& uid, bool success) {
               const auto found = members_.find(uid);
               if (found != members_.end()) end_pod(*found->second.pod, success ? kEndSucceeded : kEndFailed);
             },
             settings_.rank_start,
             settings_.rank_end},
      client_(loop, transport, random_(), settings_.client),
      pods_(loop, transport, random_(), {settings_.ns, "", ""}, {}, log_),
      slices_(loop, transport, random_(),
              {settings_.channel_ns, "kubernetes.io/service-name=" + settings_.channel_service, ""}, {}, log_) {
  pods_.add_handler({[this](const auto& pod, bool) { pod_changed(pod); },
                     [this](const auto&, const auto& pod) { pod_changed(pod); },
                     [this](const auto& pod, bool) { pod_gone(*pod); }});
  slices_.add_handler({[this](const auto&, bool) { slices_changed(); },
                       [this](const auto&, const auto&) { slices_changed(); },
                       [this](const auto&, bool) { slices_changed(); }});
}

void Swarm::start() {
  slices_.start();
  pods_.start();
  changed();
}

void Swarm::pod_changed(const std::shared_ptr<const kube::Pod>& pod) {
  const auto [found, is_new] = members_.try_emplace(pod->metadata.uid);
  Member& member = found->second;
  if (is_new) ++seen_;
  if (pod->ended() && (!member.pod || !member.pod->ended())) ++ended_;
  member.pod = pod;
  if (pod->ended()) {
    member.launcher.reset();
  } else if (member.launcher) {
    member.launcher->update(pod);
  } else if (pod->phase == kube::PodPhase::kRunning && !pod->deleting() &&
             pod->metadata.annotations.count(api::annotation::kChannel) > 0) {
    member.launcher = std::make_unique<ThinLauncher>(world_, pod);
  }
  changed();
}

void Swarm::pod_gone(const kube::Pod& pod) {
  members_.erase(pod.metadata.uid);
  changed();
}

void Swarm::slices_changed() {
  std::vector<EndpointSlice> slices;
  for (const auto& slice : slices_.store().list()) slices.push_back(*slice);
  leader_ = destination(slices, settings_.dial_host);
  for (const auto& [uid, member] : members_) {
    if (member.launcher) member.launcher->route();
  }
}

void Swarm::ask_token(const kube::Pod& pod) {
  const Json spec{{"audiences", {api::channel::kAudience}},
                  {"expirationSeconds", kTokenSeconds},
                  {"boundObjectRef",
                   {{"apiVersion", "v1"}, {"kind", "Pod"}, {"name", pod.metadata.name}, {"uid", pod.metadata.uid}}}};
  client_.create_subresource(
      service_account_type(), {pod.metadata.ns, settings_.service_account}, "token",
      {{"apiVersion", "authentication.k8s.io/v1"}, {"kind", "TokenRequest"}, {"spec", spec}},
      [this, uid = pod.metadata.uid](const Result<kube::Payload>& answer) {
        const auto found = members_.find(uid);
        if (found == members_.end() || !found->second.launcher) return;
        ThinLauncher& launcher = *found->second.launcher;
        if (!answer) return launcher.take_token(answer.error());
        const auto json = answer->json();
        const Json::json_pointer path("/status/token");
        if (!json || !(*json)->contains(path) || !(*json)->at(path).is_string()) {
          return launcher.take_token(Error(Code::kInternal, "a TokenRequest was answered without a token"));
        }
        launcher.take_token((*json)->at(path).get<std::string>());
      });
}

std::shared_ptr<Gang> Swarm::gang(const std::string& job_uid, EpochId epoch, const std::string& message) {
  std::weak_ptr<Gang>& known = gangs_[{job_uid, epoch}];
  auto gang = known.lock();
  if (gang) return gang;
  const auto decoded = api::channel::decode_to_launcher(message);
  if (!decoded) log_.error("an epoch can't be read", {{"error", decoded.error().message}});
  gang = std::make_shared<Gang>(decoded ? std::get<api::channel::Epoch>(*decoded).table : api::channel::Table());
  known = gang;
  std::erase_if(gangs_, [](const auto& entry) { return entry.second.expired(); });
  return gang;
}

void Swarm::end_pod(const kube::Pod& pod, const char* how) {
  kube::Patch patch;
  patch.body = {{"metadata", {{"annotations", {{kEnd, how}}}}}};
  patch.preconditions.uid = pod.metadata.uid;
  client_.patch<kube::Pod>(pod.metadata.key(), std::move(patch), [this, name = pod.metadata.name](const auto& answer) {
    if (!answer) log_.error("a pod can't be ended", {{"pod", name}, {"error", answer.error().message}});
  });
}

std::vector<std::string> Swarm::fail(size_t count) {
  std::map<std::string, Member*> running;
  for (auto& [uid, member] : members_) {
    if (member.pod->phase == kube::PodPhase::kRunning && !member.pod->deleting())
      running[member.pod->metadata.name] = &member;
  }
  auto next = std::next(running.begin(), static_cast<ptrdiff_t>(running.size() / 2));
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(count, running.size()); ++i) {
    if (next == running.end()) next = running.begin();
    names.push_back(next->first);
    Member& member = *(next++)->second;
    member.launcher.reset();
    end_pod(*member.pod, kEndFailed);
  }
  changed();
  return names;
}

std::string Swarm::crash() {
  const EpochId newest = census().epoch;
  Member* last = nullptr;
  for (auto& [uid, member] : members_) {
    const ThinLauncher* launcher = member.launcher.get();
    if (launcher == nullptr || !launcher->training() || launcher->seen() != newest) continue;
    if (last == nullptr || *launcher->slot() > *last->launcher->slot()) last = &member;
  }
  if (last == nullptr) return "";
  last->launcher->crash();
  return last->pod->metadata.name;
}

Census Swarm::census() const {
  Census census;
  census.seen = seen_;
  census.ended = ended_;
  for (const auto& [uid, member] : members_) {
    if (member.launcher) census.epoch = std::max(census.epoch, member.launcher->seen());
  }
  for (const auto& [uid, member] : members_) {
    if (member.pod->ended() || member.pod->deleting()) continue;
    ++census.pods;
    if (member.pod->phase == kube::PodPhase::kRunning) ++census.running;
    const ThinLauncher* launcher = member.launcher.get();
    if (launcher == nullptr) continue;
    if (launcher->connected()) ++census.connected;
    if (launcher->seen() != census.epoch || !launcher->slot()) continue;
    ++census.in_epoch;
    if (launcher->training()) ++census.training;
  }
  return census;
}

void Swarm::changed() {
  if (report_timer_) return;
  report_timer_ = loop_.after(settings_.report_every, [this] {
    report_timer_.reset();
    report_(census());
  });
}

}  // namespace pitcrew::swarm
