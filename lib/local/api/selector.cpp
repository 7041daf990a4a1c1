#include "lib/local/api/selector.hpp"

#include <algorithm>
#include <array>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::local {
namespace {

constexpr std::array<std::string_view, 7> kFields{
    "metadata.name", "metadata.namespace", "spec.nodeName",     "status.phase",
    "reason",        "regarding.name",     "spec.unschedulable"};

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Splits at commas outside of parentheses.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t first = 0;
  int depth = 0;
  for (size_t at = 0; at <= text.size(); ++at) {
    if (at == text.size() || (text[at] == ',' && depth == 0)) {
      const std::string_view part = trim(text.substr(first, at - first));
      if (!part.empty()) parts.push_back(part);
      first = at + 1;
    } else if (text[at] == '(') {
      ++depth;
    } else if (text[at] == ')') {
      --depth;
    }
  }
  return parts;
}

Error bad_selector(std::string_view term) {
  return Error(Code::kInvalidArgument,
               "unable to parse requirement '" + std::string(term) + "'; write it like a=b, a!=b, a in (b,c), a or !a");
}

}  // namespace

Result<Selector::Requirement> Selector::parse(std::string_view term) {
  if (const size_t at = term.find("!="); at != term.npos) {
    return Requirement{
        std::string(trim(term.substr(0, at))), Operator::kNotIn, {std::string(trim(term.substr(at + 2)))}};
  }
  if (const size_t at = term.find('='); at != term.npos) {
    const size_t skip = term.substr(at, 2) == "==" ? 2 : 1;
    return Requirement{
        std::string(trim(term.substr(0, at))), Operator::kIn, {std::string(trim(term.substr(at + skip)))}};
  }
  if (const size_t open = term.find('('); open != term.npos) {
    if (term.back() != ')') return bad_selector(term);
    const std::string_view head = trim(term.substr(0, open));
    const size_t space = head.rfind(' ');
    if (space == head.npos) return bad_selector(term);
    const std::string_view word = head.substr(space + 1);
    if (word != "in" && word != "notin") return bad_selector(term);
    Requirement requirement{
        std::string(trim(head.substr(0, space))), word == "in" ? Operator::kIn : Operator::kNotIn, {}};
    for (const std::string_view value : split(term.substr(open + 1, term.size() - open - 2))) {
      requirement.values.emplace_back(value);
    }
    return requirement;
  }
  if (term.find(' ') != term.npos) return bad_selector(term);
  if (term.front() == '!') return Requirement{std::string(term.substr(1)), Operator::kNotExists, {}};
  return Requirement{std::string(term), Operator::kExists, {}};
}

Result<Selector> Selector::labels(std::string_view text) {
  Selector selector;
  for (const std::string_view term : split(text)) {
    PITCREW_ASSIGN(Requirement requirement, parse(term));
    if (requirement.key.empty()) return bad_selector(term);
    selector.requirements_.push_back(std::move(requirement));
  }
  return selector;
}

Result<Selector> Selector::fields(std::string_view text) {
  PITCREW_ASSIGN(Selector selector, labels(text));
  for (const Requirement& requirement : selector.requirements_) {
    const bool equality = requirement.values.size() == 1;
    if (equality && std::find(kFields.begin(), kFields.end(), requirement.key) != kFields.end()) continue;
    return Error(Code::kInvalidArgument, "field label not supported: " + requirement.key);
  }
  return selector;
}

bool Selector::matches(const Requirement& requirement, const std::string* value) {
  const auto listed = [&] {
    return std::find(requirement.values.begin(), requirement.values.end(), *value) != requirement.values.end();
  };
  switch (requirement.operation) {
    case Operator::kIn:
      return value != nullptr && listed();
    case Operator::kNotIn:
      return value == nullptr || !listed();
    case Operator::kExists:
      return value != nullptr;
    case Operator::kNotExists:
      return value == nullptr;
  }
  return false;
}

bool Selector::matches_labels(const Json& object) const {
  if (requirements_.empty()) return true;
  const Json* labels = kube::fields::find(object, "metadata", "labels");
  for (const Requirement& requirement : requirements_) {
    const Json* label = labels == nullptr ? nullptr : kube::fields::find(*labels, requirement.key.c_str());
    const std::string* value = label != nullptr && label->is_string() ? label->get_ptr<const std::string*>() : nullptr;
    if (!matches(requirement, value)) return false;
  }
  return true;
}

bool Selector::matches_fields(const Json& object) const {
  static const std::string kAbsent;  // an absent field is the empty text
  for (const Requirement& requirement : requirements_) {
    const std::string* value = text_at(object, requirement.key);
    if (!matches(requirement, value == nullptr ? &kAbsent : value)) return false;
  }
  return true;
}

const std::string* Selector::required(std::string_view key) const {
  for (const Requirement& requirement : requirements_) {
    if (requirement.key == key && requirement.operation == Operator::kIn && requirement.values.size() == 1) {
      return &requirement.values.front();
    }
  }
  return nullptr;
}

const std::string* text_at(const Json& object, std::string_view path) {
  const Json* at = &object;
  while (true) {
    const size_t dot = path.find('.');
    at = kube::fields::find(*at, std::string(path.substr(0, dot)).c_str());
    if (at == nullptr) return nullptr;
    if (dot == path.npos) break;
    path.remove_prefix(dot + 1);
  }
  return at->is_string() ? at->get_ptr<const std::string*>() : nullptr;
}

}  // namespace pitcrew::local
