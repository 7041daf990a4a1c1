#include "operator/decide/scenarios/trace.hpp"

#include <algorithm>
#include <sstream>

namespace pitcrew::control {
namespace {

std::string of(const std::optional<Slot>& slot) { return slot ? "slot " + std::to_string(slot->value) : "spare"; }

std::string on(const std::string& node) { return node.empty() ? "" : " on " + node; }

class StatusTrace {
 public:
  StatusTrace(const api::TrainingJobStatus& before, const api::TrainingJobStatus& after) : a_(before), b_(after) {}

  std::vector<std::string> lines() {
    phase();
    pods();
    epoch();
    recoveries();
    conditions();
    rest();
    if (lines_.empty()) lines_.push_back("write: progress");
    return std::move(lines_);
  }

 private:
  void line(const std::string& text) { lines_.push_back("write: " + text); }

  void phase() {
    if (a_.phase != b_.phase)
      line("phase " + std::string(to_string(a_.phase)) + " -> " + std::string(to_string(b_.phase)));
  }

  void pods() {
    const auto in = [](const std::vector<api::PodRecord>& records, Serial serial) {
      return std::find_if(records.begin(), records.end(), [&](const auto& record) { return record.serial == serial; });
    };
    for (const auto& record : a_.pods) {
      if (in(b_.pods, record.serial) == b_.pods.end())
        line("pod " + std::to_string(record.serial.value) + " is not ours any more");
    }
    for (const auto& record : b_.pods) {
      const auto before = in(a_.pods, record.serial);
      const std::string pod = "pod " + std::to_string(record.serial.value);
      if (before == a_.pods.end())
        line("reserve " + pod + " as " + of(record.slot) + on(record.node));
      else if (before->slot != record.slot)
        line(pod + " becomes " + of(record.slot));
    }
  }

  void epoch() {
    if (a_.epoch == b_.epoch) return;
    std::ostringstream text;
    text << "epoch " << b_.epoch.number << " of term " << b_.epoch.term << ":";
    for (const auto& slot : b_.slots) text << " " << slot.serial << "@" << slot.node;
    if (b_.epoch.resume_step)
      text << ", from step " << *b_.epoch.resume_step << " (" << b_.epoch.resume_place << ")";
    else
      text << ", from the beginning";
    if (a_.epoch.number == b_.epoch.number) {
      // Settled, or just begun by the recovery that is told below.
      if (a_.epoch.replay && !b_.epoch.replay) line("step " + std::to_string(a_.epoch.replay->step.value) + " is past");
      return;
    }
    if (a_.epoch.port == b_.epoch.port) text << ", ON THE SAME PORT";
    if (b_.epoch.replay) {
      text << ", step " << b_.epoch.replay->step << " of rank " << b_.epoch.replay->rank << " under suspicion of node "
           << b_.epoch.replay->node;
    }
    line(text.str());
  }

  void recoveries() {
    if (b_.recoveries.empty()) return;
    const api::Recovery& now = b_.recoveries.front();
    const bool fresh = a_.recoveries.empty() || a_.recoveries.front().happened != now.happened ||
                       a_.recoveries.front().detected != now.detected;
    if (fresh) {
      line("recovery " + std::string(to_string(now.cause)) + " -> " + std::string(to_string(now.rung)) +
           (now.node.empty() ? "" : ", node " + now.node) +
           (now.rank ? ", rank " + std::to_string(now.rank->value) : "") + ": " + now.evidence);
    } else if (a_.recoveries.front().rung != now.rung) {
      line("recovery now " + std::string(to_string(now.rung)));
    } else if (a_.recoveries.front().cause != now.cause) {
      line("its cause was " + std::string(to_string(now.cause)));
    }
    if (!fresh && !a_.recoveries.front().first_step && now.first_step) {
      line("recovered " + to_string(std::chrono::duration_cast<milliseconds>(*now.first_step - *now.happened)) +
           " after it happened, " + std::to_string(now.steps_lost.value_or(0)) + " steps lost");
    }
  }

  void conditions() {
    for (const Condition& condition : b_.conditions) {
      const Condition* before = find_condition(a_.conditions, condition.type);
      if (before && before->status == condition.status && before->reason == condition.reason) continue;
      if (!before && !condition.status && condition.reason.empty()) continue;
      line(condition.type + " is " + (condition.status ? "true" : "false") + ": " + condition.reason +
           (condition.message.empty() ? "" : " (" + condition.message + ")"));
    }
  }

  void rest() {
    if (a_.avoided_nodes != b_.avoided_nodes) {
      std::string nodes;
      for (const std::string& node : b_.avoided_nodes) nodes += " " + node;
      line(nodes.empty() ? "no node is avoided" : "avoided nodes:" + nodes);
    }
    for (const char* name : {"stop/suspend", "stop/deadline", "drain", "stop/drain", "stop/fault"}) {
      if (!a_.marks.contains(name) && b_.marks.contains(name)) line(std::string("mark ") + name);
    }
    if (a_.checkpoint.durable_step != b_.checkpoint.durable_step) {
      line("durable checkpoint at step " + std::to_string(b_.checkpoint.durable_step->value));
    }
    for (const auto& request : b_.requests) {
      const auto before =
          std::find_if(a_.requests.begin(), a_.requests.end(), [&](const auto& r) { return r.id == request.id; });
      if (before != a_.requests.end() && before->state == request.state) continue;
      line("request " + request.id + " (" + request.verb + ") " + request.state +
           (request.message.empty() ? "" : ": " + request.message));
    }
  }

  const api::TrainingJobStatus& a_;
  const api::TrainingJobStatus& b_;
  std::vector<std::string> lines_;
};

std::string text_of(const api::channel::ToLauncher& message) {
  using namespace api::channel;
  if (const auto* epoch = std::get_if<Epoch>(&message)) return "epoch " + std::to_string(epoch->id.number.value);
  if (const auto* stop = std::get_if<Stop>(&message)) {
    return stop->save ? "save and stop within " + to_string(stop->grace) : std::string("abort");
  }
  if (std::holds_alternative<Save>(message)) return "save";
  if (std::holds_alternative<Diagnose>(message)) return "diagnose";
  return std::get<Finish>(message).success ? "finish" : "finish without success";
}

}  // namespace

std::vector<std::string> trace_of(const api::TrainingJob& job, const Plan& plan) {
  std::vector<std::string> lines;
  if (plan.status) lines = StatusTrace(job.status, *plan.status).lines();
  for (const Notice& notice : plan.events) lines.push_back("event: " + notice.reason + ", " + notice.action);
  if (plan.create_budget) lines.push_back("create: the disruption budget");
  for (const CreatePod& pod : plan.creates) {
    lines.push_back("create: pod " + std::to_string(pod.serial.value) + " as " + of(pod.slot) + on(pod.node));
  }
  for (const DeletePod& pod : plan.deletes) {
    lines.push_back("delete: pod " + pod.name.substr(pod.name.rfind('-') + 1) + (pod.force ? " by force" : "") + ", " +
                    pod.reason);
  }
  std::vector<std::pair<std::string, std::string>> told;
  for (const SendMessage& send : plan.messages) {
    const std::string pod = send.pod_name.substr(send.pod_name.rfind('-') + 1);
    const std::string what = text_of(send.message);
    const auto same = std::find_if(told.begin(), told.end(), [&](const auto& entry) { return entry.first == what; });
    if (same == told.end())
      told.emplace_back(what, pod);
    else
      same->second += ", " + pod;
  }
  for (const auto& [what, pods] : told) lines.push_back("send: " + what + " to pod " + pods);
  if (plan.delete_job) lines.push_back("delete: the job");
  return lines;
}

}  // namespace pitcrew::control
