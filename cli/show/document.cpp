#include "cli/show/document.hpp"

#include "lib/base/yaml.hpp"

namespace pitcrew::cli {
namespace {

// Plain where a YAML reader takes it for the same text; else as JSON writes it, which YAML reads too.
std::string scalar(const Json& value) {
  if (!value.is_string()) return value.dump();
  const auto& text = value.get_ref<const std::string&>();
  if (text.find('\n') == std::string::npos && !text.empty()) {
    const auto read = parse_yaml("x: " + text + "\n");
    if (read && read->size() == 1 && read->front().json.is_object() && read->front().json.size() == 1 &&
        read->front().json.contains("x") && read->front().json["x"] == value)
      return text;
  }
  return value.dump();
}

bool nested(const Json& value) { return (value.is_object() || value.is_array()) && !value.empty(); }

void write(const Json& value, size_t indent, std::string& out) {
  const std::string space(indent, ' ');
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      out += space + scalar(Json(key)) + ":";
      if (nested(member)) {
        out += "\n";
        write(member, member.is_array() ? indent : indent + 2, out);
      } else {
        out += " " + scalar(member) + "\n";
      }
    }
    return;
  }
  for (const Json& element : value) {
    if (!nested(element)) {
      out += space + "- " + scalar(element) + "\n";
      continue;
    }
    std::string inner;
    write(element, indent + 2, inner);
    inner[indent] = '-';
    out += inner;
  }
}

}  // namespace

Result<Format> parse_format(const std::string& word) {
  if (word.empty() || word == "text") return Format::kText;
  if (word == "wide") return Format::kWide;
  if (word == "json") return Format::kJson;
  if (word == "yaml") return Format::kYaml;
  return Error(Code::kInvalidArgument, "-o " + word + " is not known; there are text, wide, json and yaml");
}

std::string print_document(const Json& document, Format format) {
  if (format == Format::kJson) return document.dump(2) + "\n";
  if (!nested(document)) return scalar(document) + "\n";
  std::string out;
  write(document, 0, out);
  return out;
}

}  // namespace pitcrew::cli
