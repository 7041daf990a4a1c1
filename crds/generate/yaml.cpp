#include "crds/generate/yaml.hpp"

#include <algorithm>
#include <cctype>

namespace pitcrew::crd {
namespace {

bool plain(const std::string& text) {
  static const std::vector<std::string> kWords{"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"};
  if (text.empty() || !std::isalpha(static_cast<unsigned char>(text[0])) || text.back() == ' ') return false;
  std::string lower;
  for (const char c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c)) &&
        std::string_view(" .,/()_;'-").find(c) == std::string_view::npos) {
      return false;
    }
    lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return std::find(kWords.begin(), kWords.end(), lower) == kWords.end();
}

std::string scalar(const Ordered& json) {
  if (json.is_string() && plain(json.get<std::string>())) return json.get<std::string>();
  return json.dump();  // JSON's quoting is YAML's
}

bool nested(const Ordered& json) { return json.is_structured() && !json.empty(); }

void write(const Ordered& json, const std::string& indent, std::string& out) {
  if (json.is_array()) {
    for (const Ordered& element : json) {
      if (!nested(element)) {
        out += indent + "- " + scalar(element) + "\n";
        continue;
      }
      std::string block;
      write(element, indent + "  ", block);
      block.replace(indent.size(), 2, "- ");
      out += block;
    }
    return;
  }
  for (const auto& [key, value] : json.items()) {
    out += indent + scalar(key) + ":";
    if (nested(value)) {
      out += "\n";
      write(value, value.is_array() ? indent : indent + "  ", out);
    } else {
      out += " " + scalar(value) + "\n";
    }
  }
}

}  // namespace

std::string to_yaml(const Ordered& json) {
  std::string out;
  write(json, "", out);
  return out;
}

}  // namespace pitcrew::crd
