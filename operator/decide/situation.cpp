#include "operator/decide/situation.hpp"

#include <algorithm>

#include "operator/decide/decide.hpp"

namespace pitcrew::control {

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
      for (const kube::ContainerStatus& container : member->pod->containers) {
        if (!container.waiting_reason.empty()) why = container.name + " waits: " + container.waiting_reason;
      }
      word += why;
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
