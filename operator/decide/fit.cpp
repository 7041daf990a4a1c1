#include "operator/decide/fit.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

#include "operator/decide/drain.hpp"

namespace pitcrew::control {
namespace {

bool tolerated(const kube::Taint& taint, const std::vector<kube::Toleration>& tolerations) {
  for (const kube::Toleration& toleration : tolerations) {
    if (!toleration.effect.empty() && toleration.effect != taint.effect) continue;
    if (toleration.operation == "Exists") {
      if (toleration.key.empty() || toleration.key == taint.key) return true;
    } else if (toleration.key == taint.key && toleration.value == taint.value) {
      return true;
    }
  }
  return false;
}

bool holds(const NodeRequirement& requirement, const std::map<std::string, std::string>& labels) {
  const auto label = labels.find(requirement.key);
  const bool there = label != labels.end();
  const auto listed = [&] {
    return std::find(requirement.values.begin(), requirement.values.end(), label->second) != requirement.values.end();
  };
  if (requirement.operation == "Exists") return there;
  if (requirement.operation == "DoesNotExist") return !there;
  if (requirement.operation == "In") return there && listed();
  if (requirement.operation == "NotIn") return !there || !listed();
  if (!there || requirement.values.size() != 1) return false;
  const auto number = [](const std::string& text) -> std::optional<int64_t> {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  };
  const auto left = number(label->second);
  const auto right = number(requirement.values.front());
  if (!left || !right) return false;
  return requirement.operation == "Gt" ? *left > *right : *left < *right;
}

bool matches(const PodShape& shape, const kube::Node& node) {
  for (const auto& [key, value] : shape.node_selector) {
    const auto label = node.metadata.labels.find(key);
    if (label == node.metadata.labels.end() || label->second != value) return false;
  }
  if (shape.affinity.empty()) return true;
  std::map<std::string, std::string> labels = node.metadata.labels;
  labels.emplace("metadata.name", node.metadata.name);
  return std::any_of(shape.affinity.begin(), shape.affinity.end(), [&](const auto& term) {
    return std::all_of(term.begin(), term.end(), [&](const NodeRequirement& r) { return holds(r, labels); });
  });
}

// How much speaks against a node that takes pods: nothing where it has passed a deep check since its last fault, most
// where a fault has gone and nobody has looked.
int doubt(const NodeView& view) {
  if (!view.health) return 1;
  if (api::unchecked_fault(view.health->status)) return 2;
  return api::checked(view.health->status) == api::CheckOutcome::kPassed ? 0 : 1;
}

// How many pods of this shape go into what is free.
uint32_t room(const kube::Resources& free, const PodShape& shape) {
  int64_t pods = 1'000'000;
  for (const auto& [name, wanted] : shape.requests) {
    if (wanted <= 0) continue;
    const auto there = free.find(name);
    pods = std::min(pods, there == free.end() ? 0 : std::max<int64_t>(there->second, 0) / wanted);
  }
  if (const auto slots = free.find("pods"); slots != free.end() && !shape.requests.contains("pods")) {
    pods = std::min(pods, std::max<int64_t>(slots->second, 0) / 1000);
  }
  return static_cast<uint32_t>(pods);
}

// What a node has too little of for one pod of this shape: "too little free cpu, nvidia.com/gpu".
std::string lacking(const kube::Resources& free, const PodShape& shape) {
  std::string names;
  for (const auto& [name, wanted] : shape.requests) {
    const auto there = free.find(name);
    if (wanted <= (there == free.end() ? 0 : there->second)) continue;
    names += (names.empty() ? " " : ", ") + name;
  }
  if (!names.empty()) return "too little free" + names;
  const auto slots = free.find("pods");
  // Else what is free is reserved for pods of this job that don't exist yet.
  return slots != free.end() && slots->second < 1000 ? "as many pods as it takes" : "too little free";
}

}  // namespace

std::string refusal(const Situation& situation, const kube::Node& node) {
  if (!node.ready()) return "not ready";
  if (const std::string why = leaving(node); !why.empty())
    return why == "cordoned" || why == "unhealthy" ? why : "being taken away";
  for (const kube::Taint& taint : node.taints) {
    if (taint.effect != "PreferNoSchedule" && !tolerated(taint, situation.in.shape.tolerations)) return "tainted";
  }
  if (!matches(situation.in.shape, node)) return "not selected by the template";
  const auto& avoided = situation.status.avoided_nodes;
  if (std::find(avoided.begin(), avoided.end(), node.metadata.name) != avoided.end()) return "avoided by the job";
  for (const SilentNode& silent : situation.in.silent_nodes) {
    if (silent.node == node.metadata.name) return "silent";
  }
  return {};
}

Fit fit(const Situation& situation, uint32_t count, const std::vector<std::string>& except) {
  struct Place {
    std::string name;
    uint32_t ours = 0;
    uint32_t room = 0;
    int doubt = 1;
    // Who comes first.
    auto order() const { return std::tie(ours, doubt, name); }
  };
  std::map<std::string, uint32_t> ours, unborn;
  for (const api::PodRecord& record : situation.status.pods) {
    const kube::Pod* pod = situation.pod(record.serial);
    const std::string& name = pod != nullptr && !pod->node_name.empty() ? pod->node_name : record.node;
    if (name.empty()) continue;
    ++ours[name];
    if (pod == nullptr) ++unborn[name];
  }

  std::map<std::string, uint32_t> refusals;
  std::vector<Place> places;
  uint32_t total = 0;
  static const std::vector<NodeView> kNoNodes;
  for (const NodeView& view : situation.in.nodes ? *situation.in.nodes : kNoNodes) {
    const std::string& name = view.node->metadata.name;
    if (std::find(except.begin(), except.end(), name) != except.end()) {
      ++refusals["failed just now"];
      continue;
    }
    if (std::string why = refusal(situation, *view.node); !why.empty()) {
      ++refusals[why];
      continue;
    }
    Place place{name, ours.contains(name) ? ours[name] : 0, room(view.free, situation.in.shape), doubt(view)};
    const uint32_t reserved = unborn.contains(name) ? unborn[name] : 0;
    place.room -= std::min(place.room, reserved);
    if (place.room == 0) {
      ++refusals["with " + lacking(view.free, situation.in.shape)];
      continue;
    }
    total += place.room;
    places.push_back(std::move(place));
  }

  Fit result;
  if (total < count) {
    result.reason = "needs room for " + std::to_string(count) + (count == 1 ? " pod" : " pods") +
                    ", there is room for " + std::to_string(total);
    for (const auto& [why, nodes] : refusals) {
      result.reason += "; " + std::to_string(nodes) + (nodes == 1 ? " node " : " nodes ") + why;
    }
    return result;
  }
  while (result.nodes.size() < count) {
    Place* best = nullptr;
    for (Place& place : places) {
      if (place.room == 0) continue;
      if (best == nullptr || place.order() < best->order()) best = &place;
    }
    result.nodes.push_back(best->name);
    ++best->ours;
    --best->room;
  }
  return result;
}

}  // namespace pitcrew::control
