#include "cli/diagnose/rules.hpp"

#include <algorithm>

#include "cli/show/words.hpp"

namespace pitcrew::cli {

const Rule* matching(std::span<const Rule> rules, std::string_view message) {
  const auto found =
      std::find_if(rules.begin(), rules.end(), [&](const Rule& rule) { return contains(message, rule.text); });
  return found == rules.end() ? nullptr : &*found;
}

std::string filled(const Facts& facts, std::string_view text, const Words& more) {
  Words words = {{"kubectl", facts.kubectl},
                 {"pitcrew", facts.pitcrew},
                 {"ns", facts.job.metadata.ns},
                 {"job", facts.job.metadata.name}};
  // Pods of a job that is over go, and their logs with them: its status keeps what counts.
  const bool kept = std::any_of(facts.pods.begin(), facts.pods.end(), [](const PodFact& pod) { return !pod.deleted; });
  const std::string& name = facts.job.metadata.name;
  if (!kept || api::terminal(facts.job.status.phase)) {
    words["log"] = facts.pitcrew + " timeline " + name;
  } else {
    words["log"] = facts.pitcrew + " logs " + name + (facts.container_before ? " --previous" : "");
  }
  for (const auto& [name, value] : more) words[name] = value;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t close = text[at] == '{' ? text.find('}', at) : std::string_view::npos;
    const auto word =
        close == std::string_view::npos ? words.end() : words.find(std::string(text.substr(at + 1, close - at - 1)));
    if (word == words.end()) {
      out += text[at++];
    } else {
      out += word->second;
      at = close + 1;
    }
  }
  return out;
}

Finding finding_of(const Facts& facts, const Rule& rule, std::vector<std::string> evidence, const Words& more) {
  return {rule.id,
          rule.weight,
          filled(facts, rule.title, more),
          std::move(evidence),
          filled(facts, rule.remedy, more),
          filled(facts, rule.command, more)};
}

void Grouped::add(const Rule& rule, const std::string& pod, const std::string& evidence) {
  add(finding_of(facts_, rule, {evidence}, {{"pod", pod}}), pod);
}

void Grouped::add(Finding finding, const std::string& pod) {
  std::erase(finding.evidence, "");
  auto [group, fresh] = groups_.try_emplace(finding.id, Group{findings_.size(), {}});
  group->second.pods.push_back(pod);
  if (fresh) findings_.push_back(std::move(finding));
}

void Grouped::finish() {
  for (const auto& [id, group] : groups_) {
    auto& evidence = findings_[group.at].evidence;
    evidence.insert(evidence.begin(), "pods: " + some_of(group.pods));
  }
}

}  // namespace pitcrew::cli
