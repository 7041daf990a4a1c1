#include "lib/base/yaml.hpp"

#include <charconv>
#include <cmath>

#include <yaml-cpp/yaml.h>

namespace pitcrew {
namespace {

constexpr size_t kMaxNodes = 100'000;
constexpr size_t kMaxDepth = 128;

std::string at_line(int line) { return "line " + std::to_string(line); }

bool looks_like_number(std::string_view text) {
  if (text.empty()) return false;
  const size_t first = text[0] == '-' || text[0] == '+' ? 1 : 0;
  return first < text.size() && ((text[first] >= '0' && text[first] <= '9') || text[first] == '.');
}

Json plain_scalar(const std::string& text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (text == ".nan" || text == ".inf" || text == "-.inf") return text;  // JSON has no such numbers
  if (!looks_like_number(text)) return text;
  const char* first = text.data() + (text[0] == '+' ? 1 : 0);
  const char* last = text.data() + text.size();
  if (first[0] != '-') {
    uint64_t number = 0;
    const bool hex = text.starts_with("0x");
    const bool octal = text.starts_with("0o");
    const auto [end, error] = std::from_chars(first + (hex || octal ? 2 : 0), last, number, hex ? 16 : octal ? 8 : 10);
    if (error == std::errc() && end == last) return number;
  } else {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(first, last, number);
    if (error == std::errc() && end == last) return number;
  }
  double number = 0;
  const auto [end, error] = std::from_chars(first, last, number);
  if (error == std::errc() && end == last && std::isfinite(number)) return number;
  return text;
}

class Converter {
 public:
  explicit Converter(YamlDocument& document) : document_(document) {}

  Result<Json> convert(const YAML::Node& node, const std::string& path, size_t depth) {
    const int line = node.Mark().line + 1;
    document_.lines.emplace(path, line);
    if (++nodes_ > kMaxNodes) {
      return Error(Code::kInvalidArgument, at_line(line) + ": more than " + std::to_string(kMaxNodes) + " nodes");
    }
    if (depth > kMaxDepth) return Error(Code::kInvalidArgument, at_line(line) + ": nested deeper than 128 levels");
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: return Json(nullptr);
      case YAML::NodeType::Scalar: return node.Tag() == "!" ? Json(node.Scalar()) : plain_scalar(node.Scalar());
      case YAML::NodeType::Sequence: return convert_list(node, path, depth);
      case YAML::NodeType::Map: return convert_map(node, path, depth);
    }
    return Json(nullptr);
  }

 private:
  Result<Json> convert_list(const YAML::Node& node, const std::string& path, size_t depth) {
    Json list = Json::array();
    for (const YAML::Node& element : node) {
      PITCREW_ASSIGN(Json value, convert(element, path + "[" + std::to_string(list.size()) + "]", depth + 1));
      list.push_back(std::move(value));
    }
    return list;
  }

  Result<Json> convert_map(const YAML::Node& node, const std::string& path, size_t depth) {
    Json map = Json::object();
    for (const auto& pair : node) {
      const int line = pair.first.Mark().line + 1;
      if (!pair.first.IsScalar()) return Error(Code::kInvalidArgument, at_line(line) + ": a key must be text");
      const std::string& key = pair.first.Scalar();
      const std::string child = path.empty() ? key : path + "." + key;
      if (map.contains(key)) {
        return Error(Code::kInvalidArgument, at_line(line) + ": '" + child + "' is there twice; keep one of the two");
      }
      // A key's line is where its problem is shown, also where the value begins a line below.
      document_.lines[child] = line;
      PITCREW_ASSIGN(Json value, convert(pair.second, child, depth + 1));
      map[key] = std::move(value);
    }
    return map;
  }

  YamlDocument& document_;
  size_t nodes_ = 0;
};

}  // namespace

int YamlDocument::line_of(std::string_view path) const {
  while (true) {
    if (const auto found = lines.find(std::string(path)); found != lines.end()) return found->second;
    const size_t cut = path.find_last_of(".[");
    if (cut == std::string_view::npos) break;
    path = path.substr(0, cut);
  }
  const auto found = lines.find("");
  return found == lines.end() ? 1 : found->second;
}

Result<std::vector<YamlDocument>> parse_yaml(std::string_view text) {
  std::vector<YAML::Node> nodes;
  try {
    nodes = YAML::LoadAll(std::string(text));
    std::vector<YamlDocument> documents;
    for (const YAML::Node& node : nodes) {
      if (!node.IsDefined() || node.IsNull()) continue;  // an empty document between two "---"
      YamlDocument& document = documents.emplace_back();
      PITCREW_ASSIGN(document.json, Converter(document).convert(node, "", 0));
    }
    return documents;
  } catch (const YAML::Exception& e) {
    return Error(Code::kInvalidArgument, at_line(e.mark.line + 1) + ": not valid YAML: " + e.msg);
  }
}

}  // namespace pitcrew
