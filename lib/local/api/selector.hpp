#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/json.hpp"

namespace pitcrew::local {

// A label or a field selector, as the API's queries write it: "a=b,c!=d,e in (f,g),h notin (i),j,!k".
class Selector {
 public:
  static Result<Selector> labels(std::string_view text);
  // Equality and inequality of metadata.name, metadata.namespace, spec.nodeName, status.phase and reason-like fields
  // that the API serves; another field is an error, as there.
  static Result<Selector> fields(std::string_view text);

  bool empty() const { return requirements_.empty(); }
  bool matches_labels(const Json& object) const;
  bool matches_fields(const Json& object) const;
  // The value that `key` must have, or null: by it watches are found without asking each.
  const std::string* required(std::string_view key) const;

 private:
  enum class Operator { kIn, kNotIn, kExists, kNotExists };
  struct Requirement {
    std::string key;
    Operator operation = Operator::kExists;
    std::vector<std::string> values;
  };
  static Result<Requirement> parse(std::string_view term);
  static bool matches(const Requirement& requirement, const std::string* value);

  std::vector<Requirement> requirements_;
};

// The text at a field path ("spec.nodeName"), or null.
const std::string* text_at(const Json& object, std::string_view path);

}  // namespace pitcrew::local
