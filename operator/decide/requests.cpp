#include "operator/decide/requests.hpp"

#include <algorithm>

namespace pitcrew::control {
namespace {

constexpr size_t kMaxRequests = 10;
constexpr Duration kPatience = minutes(10);
constexpr char kRunning[] = "Running";
constexpr char kDone[] = "Done";
constexpr char kRefused[] = "Refused";

void take_in(Situation& situation, const std::string& verb) {
  const auto annotation = situation.job.metadata.annotations.find(api::annotation::kRequest + verb);
  if (annotation == situation.job.metadata.annotations.end() || annotation->second.empty()) return;
  auto& requests = situation.status.requests;
  const auto known = std::find_if(requests.begin(), requests.end(), [&](const api::RequestStatus& request) {
    return request.id == annotation->second && request.verb == verb;
  });
  if (known != requests.end()) return;
  api::RequestStatus request{annotation->second, verb, kRunning, "", situation.now};
  if (situation.status.phase != api::Phase::kRunning) {
    request.state = kRefused;
    request.message = "the job is not running";
  }
  requests.insert(requests.begin(), std::move(request));
  if (requests.size() > kMaxRequests) requests.resize(kMaxRequests);
}

}  // namespace

void answer_requests(Situation& situation) {
  take_in(situation, "save");
  take_in(situation, "stacks");
  for (api::RequestStatus& request : situation.status.requests) {
    if (request.state != kRunning) continue;
    size_t answered = 0;
    std::string where;
    for (const LauncherView& view : situation.in.launchers) {
      const auto answer = view.answers.find(request.id);
      if (answer == view.answers.end()) continue;
      ++answered;
      where += (where.empty() ? "" : ", ") + answer->second.message;
    }
    const size_t wanted = request.verb == "save" ? 1 : situation.stored.slots.size();
    if (answered > 0 && answered >= wanted) {
      request.state = kDone;
      request.message = where.substr(0, 1024);
      request.time = situation.now;
    } else if (request.time && situation.now >= *request.time + kPatience) {
      request.state = kRefused;
      request.message = "not answered within " + to_string(kPatience);
      request.time = situation.now;
    } else if (request.time) {
      situation.wake_at(*request.time + kPatience);
    }
  }
}

void tell_requests(const Situation& situation, Plan& plan) {
  if (situation.stored.phase != api::Phase::kRunning) return;
  for (const api::RequestStatus& request : situation.stored.requests) {
    if (request.state != kRunning) continue;
    for (const api::SlotStatus& row : situation.stored.slots) {
      const auto member = situation.member_of(row.slot);
      if (!member || !member->connected() || member->launcher->answers.contains(request.id)) continue;
      const auto& sent = member->launcher->sent_requests;
      if (std::find(sent.begin(), sent.end(), request.id) != sent.end()) continue;
      api::channel::ToLauncher message = api::channel::Diagnose{situation.epoch(), request.id};
      if (request.verb == "save") message = api::channel::Save{situation.epoch(), request.id};
      plan.messages.push_back({member->pod->metadata.name, member->pod->metadata.uid, std::move(message)});
    }
  }
}

}  // namespace pitcrew::control
