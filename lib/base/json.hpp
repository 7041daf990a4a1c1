#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/base/result.hpp"
#include "lib/base/strong.hpp"
#include "lib/base/time.hpp"

namespace pitcrew {

using Json = nlohmann::json;

// Parses text from outside. Nesting is bounded (128 levels), a repeated key is an error; the message names the byte
// offset.
Result<Json> parse_json(std::string_view text);

// One thing wrong with a document: where (spec.checkpoint.every.steps), and what, with the remedy.
struct Problem {
  std::string path;
  std::string message;
  bool operator==(const Problem&) const = default;
};
using Problems = std::vector<Problem>;

// "path: message; path: message"
std::string join(const Problems& problems);

// Reads one JSON object field by field into typed values and collects everything that is wrong with it, so that a
// person sees all of it at once. Every reader returns whether the field was there and of the right type.
//
//   ObjectReader spec(json, "spec", problems);
//   spec.read("replicas", replicas);
//   if (auto policy = spec.object("recovery")) policy->read("limit", limit);
//   spec.finish();   // unknown fields become problems
class ObjectReader {
 public:
  ObjectReader(const Json& json, std::string path, Problems& problems);

  bool has(std::string_view key) const;
  // The raw value, marked as known; null where it is absent or JSON null.
  const Json* raw(std::string_view key);
  const std::string& path() const { return path_; }
  std::string path_of(std::string_view key) const;
  void problem(std::string_view key, std::string message);
  Problems& problems() { return problems_; }

  bool read(std::string_view key, std::string& out);
  bool read(std::string_view key, bool& out);
  bool read(std::string_view key, double& out);
  bool read(std::string_view key, int64_t& out);
  bool read(std::string_view key, uint64_t& out);
  bool read(std::string_view key, uint32_t& out);
  bool read(std::string_view key, int& out);
  bool read(std::string_view key, Duration& out);  // "10m"
  bool read(std::string_view key, Instant& out);   // RFC 3339
  bool read(std::string_view key, std::vector<std::string>& out);
  template <typename Tag, typename T>
  bool read(std::string_view key, Strong<Tag, T>& out) {
    return read(key, out.value);
  }
  template <typename T>
  bool read(std::string_view key, std::optional<T>& out) {
    T value{};
    if (!read(key, value)) return false;
    out = std::move(value);
    return true;
  }
  // `fields` maps each allowed word to its value.
  template <typename Enum>
  bool read_enum(std::string_view key, Enum& out, const std::vector<std::pair<std::string_view, Enum>>& words) {
    std::string word;
    if (!read(key, word)) return false;
    std::string allowed;
    for (const auto& [name, value] : words) {
      if (name == word) {
        out = value;
        return true;
      }
      allowed += (allowed.empty() ? "" : ", ") + std::string(name);
    }
    problem(key, "'" + word + "' is none of: " + allowed);
    return false;
  }

  std::optional<ObjectReader> object(std::string_view key);
  // Calls f(element, path) for each element of an array.
  template <typename F>
  bool each(std::string_view key, F&& f) {
    const Json* array = raw(key);
    if (array == nullptr) return false;
    if (!array->is_array()) return wrong_type(key, "a list", *array);
    size_t index = 0;
    for (const Json& element : *array) f(element, path_of(key) + "[" + std::to_string(index++) + "]");
    return true;
  }

  // Reports every field that was never asked for, with the nearest known name. Messages between programs of different
  // versions don't call it.
  void finish();

 private:
  bool wrong_type(std::string_view key, std::string_view wanted, const Json& got);
  template <typename Int>
  bool read_integer(std::string_view key, Int& out);

  const Json* json_;
  std::string path_;
  Problems& problems_;
  std::vector<std::string> known_;
};

}  // namespace pitcrew
