#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/base/json.hpp"

namespace pitcrew::crd {

// Keeps fields in the order in which they are described, so that the file reads like the documentation.
using Ordered = nlohmann::ordered_json;

// One CEL rule of a schema. `message` is a plain sentence; `message_expression` is CEL that makes a sentence with the
// value in it (`message` is then what is said where the expression can't be evaluated, or the rule itself can't).
struct Rule {
  std::string cel;
  std::string message;
  std::string message_expression;
  std::string field_path;  // below the schema that holds the rule: ".checkpoint.path"; empty: itself
  enum class Reason { kInvalid, kRequired, kForbidden } reason = Reason::kInvalid;
};

// A structural schema under construction: a value that is built up in one expression.
class Schema {
 public:
  static Schema object(std::string description);
  static Schema text(std::string description, size_t max_length);
  static Schema integer(std::string description);
  static Schema number(std::string description);
  static Schema boolean(std::string description);
  static Schema time(std::string description);
  static Schema list(std::string description, Schema items, std::optional<size_t> max_items = std::nullopt);
  static Schema map(std::string description, Schema values);
  static Schema integer_or_text(std::string description, size_t max_length);
  // Anything at all, kept as it is and out of reach of rules.
  static Schema any();

  Schema& field(std::string name, Schema schema) &;
  Schema&& field(std::string name, Schema schema) &&;
  Schema&& fallback(Ordered value) &&;  // the default
  Schema&& rule(Rule rule) &&;
  Schema& rule(Rule rule) &;
  // Fields that aren't described survive.
  Schema&& keep_unknown() &&;
  // Anything else that OpenAPI or Kubernetes has a word for.
  Schema&& set(std::string key, Ordered value) &&;

  const Ordered& json() const { return json_; }

 private:
  Ordered json_ = Ordered::object();
};

// What an API server makes of `value` by the schema's defaults.
void apply_defaults(const Ordered& schema, Json& value);

// Every place where `value` has a field that the schema would drop, or a value that isn't of its type.
Problems compare(const Ordered& schema, const Json& value, const std::string& path);

}  // namespace pitcrew::crd
