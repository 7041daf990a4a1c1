#include "operator/decide/situation.hpp"

#include <algorithm>

#include "operator/decide/decide.hpp"

namespace pitcrew::control {
namespace {

constexpr size_t kLongestReason = 200;

// One line of what a runtime or a program says.
std::string in_short(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  if (text.size() <= kLongestReason) return text;
  size_t end = kLongestReason;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not inside a UTF-8 character
  return text.substr(0, end) + " ...";
}

std::string with_reason(std::string words, const std::string& reason) {
  return reason.empty() ? words : words + ": " + in_short(reason);
}

// What an init container does that all others wait for.
std::string told(const kube::ContainerStatus& container) {
  const std::string name = "init container " + container.name;
  const auto& ended = container.terminated ? container.terminated : container.last_terminated;
  if (ended && ended->exit_code != 0) {
    std::string words = name + (container.running ? " runs again, after exit code " : " failed with exit code ") +
                        std::to_string(ended->exit_code);
    if (!ended->reason.empty() && ended->reason != "Error") words += " (" + ended->reason + ")";
    if (container.restarts > 0)
      words += ", " + std::to_string(container.restarts) + (container.restarts == 1 ? " restart" : " restarts");
    return with_reason(words, ended->message);
  }
  if (container.running) {
    return name + " still runs" + (container.started ? ", since " + to_rfc3339(*container.started) : std::string());
  }
  // The kubelet says PodInitializing of one that it has not come to, and of all behind it.
  if (container.waiting_reason.empty() || container.waiting_reason == "PodInitializing")
    return name + " has not started";
  return with_reason(name + " waits: " + container.waiting_reason, container.waiting_message);
}

// Why the containers of a bound pod don't run, as its kubelet says; "" where it says nothing.
std::string held_up_by(const kube::Pod& pod) {
  if (!pod.initializing.empty()) return told(pod.initializing.front());
  std::string why;
  for (const kube::ContainerStatus& container : pod.containers) {
    if (container.waiting_reason.empty()) continue;
    const bool again = container.waiting_reason == "CrashLoopBackOff";  // its message is the pause, which changes
    why = with_reason(container.name + " waits: " + container.waiting_reason, again ? "" : container.waiting_message);
  }
  return why;
}

}  // namespace

Situation::Situation(const Snapshot& snapshot, Instant at)
    : in(snapshot),
      now(at),
      job(*snapshot.job),
      spec(snapshot.job->spec),
      stored(snapshot.job->status),
      status(snapshot.job->status) {
  if (snapshot.nodes) {
    nodes_.reserve(snapshot.nodes->size());
    for (const NodeView& view : *snapshot.nodes) nodes_.emplace(view.node->metadata.name, &view);
  }
  launchers_.reserve(snapshot.launchers.size());
  for (const LauncherView& view : snapshot.launchers) launchers_.emplace(view.pod_uid, &view);
  pods_.reserve(snapshot.pods.size());
  for (const PodView& view : snapshot.pods) pods_.emplace(view.serial, view.pod.get());
}

void Situation::wake_at(Instant time) {
  if (!wake_ || time < *wake_) wake_ = time;
}

void Situation::notice(bool warning, std::string reason, std::string action, std::string message) {
  events.push_back({warning, std::move(reason), std::move(action), std::move(message)});
}

const NodeView* Situation::node_view(const std::string& name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : found->second;
}

const kube::Node* Situation::node(const std::string& name) const {
  const NodeView* view = node_view(name);
  return view == nullptr ? nullptr : view->node.get();
}

const kube::Pod* Situation::pod(Serial serial) const {
  const auto found = pods_.find(serial);
  return found == pods_.end() ? nullptr : found->second;
}

const LauncherView* Situation::launcher(const std::string& pod_uid) const {
  const auto found = launchers_.find(pod_uid);
  return found == launchers_.end() ? nullptr : found->second;
}

Member Situation::member(const api::PodRecord& record) const {
  Member member;
  member.record = &record;
  member.pod = pod(record.serial);
  if (member.pod != nullptr) member.launcher = launcher(member.pod->metadata.uid);
  member.node = node(member.bound() ? member.pod->node_name : record.node);
  return member;
}

std::optional<Member> Situation::member_of(Slot slot) const {
  if (slot.value >= found_at_.size()) found_at_.resize(slot.value + 1);
  size_t& at = found_at_[slot.value];
  if (at < status.pods.size() && status.pods[at].slot == slot) return member(status.pods[at]);
  for (size_t i = 0; i < status.pods.size(); ++i) {
    if (status.pods[i].slot != slot) continue;
    at = i;
    return member(status.pods[i]);
  }
  return std::nullopt;
}

std::vector<Member> Situation::spares() const {
  std::vector<Member> found;
  for (const api::PodRecord& record : status.pods) {
    if (!record.slot) found.push_back(member(record));
  }
  return found;
}

bool Situation::gang_connected() const {
  for (uint32_t slot = 0; slot < spec.replicas; ++slot) {
    const auto member = member_of(Slot(slot));
    if (!member || !member->connected()) return false;
  }
  return true;
}

std::string Situation::missing() const {
  std::vector<std::string> words;
  for (uint32_t slot = 0; slot < spec.replicas; ++slot) {
    const auto member = member_of(Slot(slot));
    if (member && member->connected()) continue;
    std::string word = "slot " + std::to_string(slot);
    if (!member) {
      word += " has no pod";
    } else if (member->pod == nullptr) {
      word += " (pod " + api::pod_name(job, member->record->serial) + ") is not created yet";
    } else {
      word += " (pod " + member->pod->metadata.name;
      if (member->bound()) word += ", node " + member->pod->node_name;
      word += ") ";
      std::string why = member->bound() ? "is not connected" : "is not scheduled";
      if (!member->bound() && !member->pod->unschedulable_message.empty())
        why += ": " + member->pod->unschedulable_message;
      const std::string held_up = held_up_by(*member->pod);
      word += held_up.empty() ? why : held_up;
    }
    words.push_back(std::move(word));
  }
  return list_of(words);
}

std::optional<Instant> Situation::marked(const std::string& name) const {
  const auto found = status.marks.find(name);
  if (found == status.marks.end()) return std::nullopt;
  return found->second;
}

bool Situation::hello_grace_over() const { return now >= in.leading_since + kHelloGrace; }

std::string list_of(const std::vector<std::string>& words, size_t at_most) {
  std::string text;
  for (size_t i = 0; i < words.size() && i < at_most; ++i) text += (i ? ", " : "") + words[i];
  if (words.size() > at_most) text += " and " + std::to_string(words.size() - at_most) + " more";
  return text;
}

}  // namespace pitcrew::control
