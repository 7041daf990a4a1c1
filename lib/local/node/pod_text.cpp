#include "lib/local/node/pod_text.hpp"

#include <string_view>

namespace pitcrew::local {
namespace {

constexpr std::string_view kDelimiters = "=:,;\"'`()[]{}<>| \t\n";

bool delimiter(char c) { return kDelimiters.find(c) != std::string_view::npos; }

// The longest key that stands at `at` as a whole path or as the beginning of one.
const std::pair<const std::string, std::string>* match(const std::string& text, size_t at,
                                                       const std::map<std::string, std::string>& paths) {
  const std::pair<const std::string, std::string>* best = nullptr;
  for (const auto& entry : paths) {
    const size_t end = at + entry.first.size();
    if (text.compare(at, entry.first.size(), entry.first) != 0) continue;
    if (end < text.size() && text[end] != '/' && !delimiter(text[end])) continue;
    if (best == nullptr || entry.first.size() > best->first.size()) best = &entry;
  }
  return best;
}

}  // namespace

std::string map_paths(const std::string& text, const std::map<std::string, std::string>& paths) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto* found = text[at] == '/' && (at == 0 || delimiter(text[at - 1])) ? match(text, at, paths) : nullptr;
    if (found != nullptr) {
      out += found->second;
      at += found->first.size();
    } else {
      out += text[at++];
    }
  }
  return out;
}

std::string expand_variables(const std::string& text, const std::map<std::string, std::string>& variables) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '$' || at + 1 >= text.size()) {
      out += text[at++];
      continue;
    }
    if (text[at + 1] == '$') {
      out += '$';
      at += 2;
      continue;
    }
    const size_t end = text[at + 1] == '(' ? text.find(')', at) : std::string::npos;
    const auto found = end == std::string::npos ? variables.end() : variables.find(text.substr(at + 2, end - at - 2));
    if (found == variables.end()) {
      out += text[at++];
    } else {
      out += found->second;
      at = end + 1;
    }
  }
  return out;
}

}  // namespace pitcrew::local
