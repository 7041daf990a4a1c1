#include "lib/base/yaml.hpp"

#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

namespace pitcrew {
namespace {

constexpr size_t kMaxNodes = 100'000;
constexpr size_t kMaxDepth = 128;
constexpr size_t kMaxDocuments = 1'000;

bool looks_like_number(std::string_view text) {
  if (text.empty()) return false;
  const size_t first = text[0] == '-' || text[0] == '+' ? 1 : 0;
  return first < text.size() && ((text[first] >= '0' && text[first] <= '9') || text[first] == '.');
}

Json plain_scalar(const std::string& text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
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
  return text;  // .nan and .inf too: JSON has no such numbers
}

// Leaves yaml-cpp's parser, which knows no other way; caught in parse_yaml().
struct Refused {
  int line;
  std::string message;
};

// Builds one document out of yaml-cpp's events, so that limits hold while it is read and not when it is too late.
class Builder final : public YAML::EventHandler {
 public:
  std::optional<YamlDocument> take() {
    if (!started_) return std::nullopt;
    started_ = false;
    return std::move(document_);
  }

  void OnDocumentStart(const YAML::Mark&) override {
    document_ = {};
    anchors_.clear();
    nodes_ = 0;
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { put(mark, nullptr, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) refuse(mark, "an alias of something that contains it");
    count(mark, found->second.second);
    put(mark, found->second.first, 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!frames_.empty() && frames_.back().value.is_object() && !frames_.back().key) return put_key(mark, value);
    put(mark, tag == "!" ? Json(value) : plain_scalar(value), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, Json::array(), anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, Json::object(), anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    Json value;
    std::string path;
    std::optional<std::string> key;  // of a map, whose value comes next
    YAML::anchor_t anchor;
    size_t nodes_before;
  };

  [[noreturn]] static void refuse(const YAML::Mark& mark, std::string message) {
    throw Refused{mark.line + 1, std::move(message)};
  }

  void count(const YAML::Mark& mark, size_t nodes) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes) refuse(mark, "more than " + std::to_string(kMaxNodes) + " nodes");
  }

  // Where the next value stands.
  std::string next_path(const YAML::Mark& mark) const {
    if (frames_.empty()) return "";
    const Frame& frame = frames_.back();
    if (frame.value.is_array()) return frame.path + "[" + std::to_string(frame.value.size()) + "]";
    if (!frame.key) refuse(mark, "a key must be text");
    return child(frame, *frame.key);
  }
  static std::string child(const Frame& frame, const std::string& key) {
    return frame.path.empty() ? key : frame.path + "." + key;
  }

  void put_key(const YAML::Mark& mark, const std::string& key) {
    Frame& frame = frames_.back();
    const std::string path = child(frame, key);
    if (frame.value.contains(key)) refuse(mark, "'" + path + "' is there twice; keep one of the two");
    document_.lines.emplace(path, mark.line + 1);
    frame.key = key;
  }

  void attach(Json value) {
    if (frames_.empty()) {
      document_.json = std::move(value);
      started_ = true;
    } else if (Frame& frame = frames_.back(); frame.value.is_array()) {
      frame.value.push_back(std::move(value));
    } else {
      frame.value[*std::exchange(frame.key, std::nullopt)] = std::move(value);
    }
  }

  void put(const YAML::Mark& mark, Json value, YAML::anchor_t anchor) {
    count(mark, 1);
    document_.lines.emplace(next_path(mark), mark.line + 1);
    if (anchor != 0) anchors_[anchor] = {value, 1};
    attach(std::move(value));
  }

  void open(const YAML::Mark& mark, Json value, YAML::anchor_t anchor) {
    count(mark, 1);
    if (frames_.size() >= kMaxDepth) refuse(mark, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    std::string path = next_path(mark);
    document_.lines.emplace(path, mark.line + 1);
    frames_.push_back({std::move(value), std::move(path), std::nullopt, anchor, nodes_ - 1});
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    if (frame.anchor != 0) anchors_[frame.anchor] = {frame.value, nodes_ - frame.nodes_before};
    attach(std::move(frame.value));
  }

  YamlDocument document_;
  bool started_ = false;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, std::pair<Json, size_t>> anchors_;  // with the number of its nodes
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
  const auto bad = [](int line, const std::string& message) {
    return Error(Code::kInvalidArgument, "line " + std::to_string(line) + ": " + message);
  };
  std::vector<YamlDocument> documents;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder;
    // yaml-cpp 0.7 finds empty documents without end in a stray ',' or ']'.
    for (size_t count = 0; parser.HandleNextDocument(builder); ++count) {
      if (count >= kMaxDocuments)
        return bad(1, "not valid YAML: more than " + std::to_string(kMaxDocuments) + " documents");
      auto document = builder.take();
      if (document && !document->json.is_null()) documents.push_back(*std::move(document));
    }
  } catch (const Refused& refused) {
    return bad(refused.line, refused.message);
  } catch (const YAML::Exception& e) {
    return bad(e.mark.line + 1, "not valid YAML: " + e.msg);
  }
  return documents;
}

}  // namespace pitcrew
