#include "lib/base/json.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "lib/base/json_selection.hpp"

namespace pitcrew {
namespace {

constexpr size_t kMaxDepth = 128;

// Builds the document as nlohmann's own parser does, but refuses deep nesting and repeated keys, and passes over what
// the selection leaves out.
class GuardedParser : public nlohmann::json_sax<Json> {
 public:
  explicit GuardedParser(const JsonSelection::Node* selection) : wanted_(selection) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary values are not JSON"); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (skipped_ > 0) return true;
    wanted_ = stack_.back().selection;
    if (wanted_ != nullptr) {
      wanted_ = wanted_->find(name);
      skip_next_ = wanted_ == nullptr;
      if (skip_next_) return true;
      if (wanted_->all) wanted_ = nullptr;
    }
    if (stack_.back().json->contains(name)) return fail("the key '" + name + "' is there twice");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    return fail("at byte " + std::to_string(position) + ": " + e.what());
  }

  Json root;
  std::string error;

 private:
  struct Open {
    Json* json;
    const JsonSelection::Node* selection;  // null: all of it
  };

  Json* place(Json value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    Json& parent = *stack_.back().json;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  template <typename T>
  bool put(T&& value) {
    if (skipped_ == 0 && !std::exchange(skip_next_, false)) place(Json(std::forward<T>(value)));
    return true;
  }
  bool open(Json value) {
    if (++depth_ > kMaxDepth) return fail("nested deeper than " + std::to_string(kMaxDepth) + " levels");
    if (skipped_ > 0 || std::exchange(skip_next_, false)) {
      ++skipped_;
      return true;
    }
    // The elements of a list are read as the list itself.
    const bool element = !stack_.empty() && stack_.back().json->is_array();
    const JsonSelection::Node* selection = element ? stack_.back().selection : wanted_;
    stack_.push_back({place(std::move(value)), selection});
    return true;
  }
  bool close() {
    --depth_;
    if (skipped_ > 0) {
      --skipped_;
    } else {
      stack_.pop_back();
    }
    return true;
  }
  bool fail(std::string message) {
    if (error.empty()) error = std::move(message);
    return false;
  }

  std::vector<Open> stack_;
  size_t depth_ = 0;
  size_t skipped_ = 0;  // how deep inside a value that is left out
  bool skip_next_ = false;
  const JsonSelection::Node* wanted_;  // of the member whose value comes next
  std::string key_;
};

Result<Json> parse(std::string_view text, const JsonSelection::Node* selection) {
  GuardedParser parser(selection);
  const bool ok = Json::sax_parse(text.begin(), text.end(), &parser);
  if (!ok) return Error(Code::kInvalidArgument, "not valid JSON: " + parser.error);
  return std::move(parser.root);
}

std::string_view kind_of(const Json& json) {
  if (json.is_object()) return "an object";
  if (json.is_array()) return "a list";
  if (json.is_string()) return "text";
  if (json.is_boolean()) return "true or false";
  if (json.is_number()) return "a number";
  return "null";
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = up;
    }
  }
  return row.back();
}

}  // namespace

JsonSelection::JsonSelection(const std::vector<std::string_view>& paths) {
  for (std::string_view path : paths) {
    Node* node = &root_;
    while (!path.empty()) {
      const size_t dot = path.find('.');
      const std::string_view name = path.substr(0, dot);
      path.remove_prefix(dot == std::string_view::npos ? path.size() : dot + 1);
      const auto found = std::find_if(node->members.begin(), node->members.end(),
                                      [&](const Node& member) { return member.name == name; });
      node = found != node->members.end() ? &*found : &node->members.emplace_back(Node{std::string(name)});
    }
    node->all = true;
  }
}

const JsonSelection::Node* JsonSelection::Node::find(std::string_view name) const {
  for (const Node& member : members) {
    if (member.name == name) return &member;
  }
  return nullptr;
}

Result<Json> parse_json(std::string_view text) { return parse(text, nullptr); }

Result<Json> parse_json(std::string_view text, const JsonSelection& selection) {
  return parse(text, &selection.root());
}

std::string join(const Problems& problems) {
  std::string text;
  for (const Problem& problem : problems) {
    if (!text.empty()) text += "; ";
    text += problem.path.empty() ? problem.message : problem.path + ": " + problem.message;
  }
  return text;
}

ObjectReader::ObjectReader(const Json& json, std::string path, Problems& problems)
    : json_(&json), path_(std::move(path)), problems_(problems) {
  if (!json.is_object()) {
    problems_.push_back({path_, "must be an object, is " + std::string(kind_of(json))});
    static const Json kEmpty = Json::object();
    json_ = &kEmpty;
  }
}

bool ObjectReader::has(std::string_view key) const {
  const auto found = json_->find(key);
  return found != json_->end() && !found->is_null();
}

const Json* ObjectReader::raw(std::string_view key) {
  known_.emplace_back(key);
  const auto found = json_->find(key);
  if (found == json_->end() || found->is_null()) return nullptr;
  return &*found;
}

std::string ObjectReader::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

void ObjectReader::problem(std::string_view key, std::string message) {
  problems_.push_back({path_of(key), std::move(message)});
}

bool ObjectReader::wrong_type(std::string_view key, std::string_view wanted, const Json& got) {
  problem(key, "must be " + std::string(wanted) + ", is " + std::string(kind_of(got)));
  return false;
}

bool ObjectReader::read(std::string_view key, std::string& out) {
  const Json* value = raw(key);
  if (value == nullptr) return false;
  if (!value->is_string()) return wrong_type(key, "text", *value);
  out = value->get<std::string>();
  return true;
}

bool ObjectReader::read(std::string_view key, bool& out) {
  const Json* value = raw(key);
  if (value == nullptr) return false;
  if (!value->is_boolean()) return wrong_type(key, "true or false", *value);
  out = value->get<bool>();
  return true;
}

bool ObjectReader::read(std::string_view key, double& out) {
  const Json* value = raw(key);
  if (value == nullptr) return false;
  if (!value->is_number()) return wrong_type(key, "a number", *value);
  out = value->get<double>();
  return true;
}

template <typename Int>
bool ObjectReader::read_integer(std::string_view key, Int& out) {
  const Json* value = raw(key);
  if (value == nullptr) return false;
  if (!value->is_number_integer()) return wrong_type(key, "a whole number", *value);
  if (value->is_number_unsigned()) {
    const uint64_t number = value->get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<Int>::max())) {
      problem(key, std::to_string(number) + " is too large");
      return false;
    }
    out = static_cast<Int>(number);
    return true;
  }
  const int64_t number = value->get<int64_t>();
  if (std::is_unsigned_v<Int> || number < static_cast<int64_t>(std::numeric_limits<Int>::min())) {
    problem(key, std::to_string(number) + (std::is_unsigned_v<Int> ? " must not be negative" : " is too small"));
    return false;
  }
  out = static_cast<Int>(number);
  return true;
}

bool ObjectReader::read(std::string_view key, int64_t& out) { return read_integer(key, out); }
bool ObjectReader::read(std::string_view key, uint64_t& out) { return read_integer(key, out); }
bool ObjectReader::read(std::string_view key, uint32_t& out) { return read_integer(key, out); }
bool ObjectReader::read(std::string_view key, int& out) { return read_integer(key, out); }

bool ObjectReader::read(std::string_view key, Duration& out) {
  std::string text;
  const Json* value = raw(key);
  if (value == nullptr) return false;
  if (!value->is_string()) return wrong_type(key, "a duration like 30s or 10m", *value);
  auto parsed = parse_duration(value->get_ref<const std::string&>());
  if (!parsed) {
    problem(key, parsed.error().message);
    return false;
  }
  out = *parsed;
  return true;
}

bool ObjectReader::read(std::string_view key, Instant& out) {
  std::string text;
  if (!read(key, text)) return false;
  auto parsed = parse_rfc3339(text);
  if (!parsed) {
    problem(key, parsed.error().message);
    return false;
  }
  out = *parsed;
  return true;
}

bool ObjectReader::read(std::string_view key, std::vector<std::string>& out) {
  std::vector<std::string> values;
  bool good = true;
  const bool there = each(key, [&](const Json& element, const std::string& path) {
    if (element.is_string()) {
      values.push_back(element.get<std::string>());
    } else {
      problems_.push_back({path, "must be text, is " + std::string(kind_of(element))});
      good = false;
    }
  });
  if (!there || !good) return false;
  out = std::move(values);
  return true;
}

std::optional<ObjectReader> ObjectReader::object(std::string_view key) {
  const Json* value = raw(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) {
    wrong_type(key, "an object", *value);
    return std::nullopt;
  }
  return ObjectReader(*value, path_of(key), problems_);
}

void ObjectReader::finish() {
  for (const auto& [key, value] : json_->items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::string_view nearest;
    size_t best = std::max<size_t>(2, key.size() / 3) + 1;
    for (const std::string& name : known_) {
      if (const size_t distance = edit_distance(key, name); distance < best) {
        best = distance;
        nearest = name;
      }
    }
    problem(key, nearest.empty() ? "unknown field; remove it"
                                 : "unknown field; did you mean '" + std::string(nearest) + "'?");
  }
}

}  // namespace pitcrew
