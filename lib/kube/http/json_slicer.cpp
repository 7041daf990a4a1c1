#include "lib/kube/http/json_slicer.hpp"

#include <utility>

namespace pitcrew::kube {
namespace {

constexpr size_t kMaxDepth = 160;  // the parser's own limit is 128, of one value
constexpr size_t kMaxName = 64;

Error no_json() {
  return Error(Code::kDataLoss, "the answer is no JSON object; is this the address of a Kubernetes API server?");
}

}  // namespace

bool JsonSlicer::in_items() const {
  return settings_.slice == Slice::kItems && depth() == 2 && stack_[1] == '[' && top_name_ == "items";
}

Status JsonSlicer::feed(std::string_view bytes) {
  size_t begin = 0;  // of what has not been put anywhere yet
  size_t at = 0;
  while (at < bytes.size()) {
    if (in_string_) {
      if (std::exchange(escaped_, false)) {
        ++at;
        continue;
      }
      const size_t from = at;
      while (at < bytes.size() && bytes[at] != '"' && bytes[at] != '\\') ++at;
      if (keeping_ && name_.size() < kMaxName) name_.append(bytes.substr(from, at - from));
      if (at == bytes.size()) break;
      if (bytes[at] == '\\') {
        escaped_ = true;
      } else {
        end_string();
      }
      ++at;
      continue;
    }
    const char c = bytes[at];
    const auto run = [&] { return bytes.substr(begin, at - begin); };
    switch (c) {
      case '{':
      case '[':
        PITCREW_TRY(open(c, run()));
        begin = at++;
        continue;
      case '}':
      case ']':
        PITCREW_TRY(close(c, bytes.substr(begin, at + 1 - begin)));
        begin = ++at;
        continue;
      case ',':
        name_next_ = !stack_.empty() && stack_.back() == '{';
        if (in_items()) {
          PITCREW_TRY(put(run()));
          begin = at + 1;
        }
        break;
      case '"':
        if (stack_.empty() || in_items()) return no_json();
        begin_string();
        break;
      case ' ':
      case '\n':
      case '\r':
      case '\t':
        if (stack_.empty()) begin = at + 1;
        break;
      default:
        if (stack_.empty() || in_items()) return no_json();
        break;
    }
    ++at;
  }
  return put(bytes.substr(begin));
}

void JsonSlicer::begin_string() {
  in_string_ = true;
  keeping_ =
      std::exchange(name_next_, false) && (depth() == 1 || (where_ == Where::kValue && settings_.drop_managed_fields &&
                                                            (depth() == value_depth_ || depth() == value_depth_ + 1)));
  if (keeping_) name_.clear();
}

void JsonSlicer::end_string() {
  in_string_ = false;
  if (!std::exchange(keeping_, false)) return;
  if (depth() == 1) {
    top_name_ = name_;
  } else if (depth() == value_depth_) {
    value_name_ = name_;
  }
}

// `run` is what came before the bracket.
Status JsonSlicer::open(char bracket, std::string_view run) {
  PITCREW_TRY(put(run));
  if (stack_.empty() && bracket == '[') return no_json();
  if (depth() >= kMaxDepth) return Error(Code::kDataLoss, "JSON nested deeper than any object of Kubernetes");
  const bool wanted =
      settings_.slice == Slice::kItems ? in_items() : depth() == 1 && bracket == '{' && top_name_ == "object";
  if (where_ == Where::kEnvelope && wanted) {
    if (bracket != '{') return no_json();
    where_ = Where::kValue;
    value_depth_ = depth() + 1;
    value_name_.clear();
  } else if (where_ == Where::kValue && settings_.drop_managed_fields && depth() == value_depth_ + 1 &&
             value_name_ == "metadata" && name_ == "managedFields") {
    value_ += "null";
    where_ = Where::kSkipped;
    skip_depth_ = depth() + 1;
  }
  stack_ += bracket;
  name_next_ = bracket == '{';
  if (depth() == 1) top_name_.clear();
  return {};
}

// `run` includes the bracket.
Status JsonSlicer::close(char bracket, std::string_view run) {
  if (stack_.empty() || stack_.back() != (bracket == '}' ? '{' : '[')) {
    return Error(Code::kDataLoss, "a bracket of the JSON text doesn't match");
  }
  PITCREW_TRY(put(run));
  stack_.pop_back();
  name_next_ = false;
  if (where_ == Where::kSkipped) {
    if (depth() + 1 == skip_depth_) where_ = Where::kValue;
  } else if (where_ == Where::kValue && depth() + 1 == value_depth_) {
    where_ = Where::kEnvelope;
    if (settings_.slice == Slice::kObject) envelope_ += "null";
    std::string value;
    value.reserve(value_.size());
    value.assign(value_);
    value_.clear();
    sink_.on_value(std::move(value));
  } else if (stack_.empty()) {
    ++documents_;
    sink_.on_document(std::exchange(envelope_, {}));
  }
  return {};
}

Status JsonSlicer::put(std::string_view run) {
  if (where_ == Where::kSkipped) return {};
  const bool value = where_ == Where::kValue;
  std::string& text = value ? value_ : envelope_;
  const size_t limit = value ? settings_.max_value_bytes : settings_.max_envelope_bytes;
  if (text.size() + run.size() > limit) {
    return Error(Code::kResourceExhausted, std::string(value ? "an object" : "the answer around its objects") +
                                               " has more than " + std::to_string(limit) + " bytes");
  }
  text.append(run);
  return {};
}

}  // namespace pitcrew::kube
