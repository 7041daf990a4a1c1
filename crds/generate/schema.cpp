#include "crds/generate/schema.hpp"

namespace pitcrew::crd {
namespace {

Ordered typed(const char* type, std::string description) {
  Ordered json;
  json["type"] = type;
  if (!description.empty()) json["description"] = std::move(description);
  return json;
}

bool has_type(const Ordered& schema, const Json& value) {
  if (schema.contains("x-kubernetes-int-or-string")) return value.is_number_integer() || value.is_string();
  if (!schema.contains("type")) return true;
  const std::string type = schema.at("type");
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer") return value.is_number_integer();
  return value.is_number();
}

}  // namespace

Schema Schema::object(std::string description) {
  Schema schema;
  schema.json_ = typed("object", std::move(description));
  return schema;
}

Schema Schema::text(std::string description, size_t max_length) {
  Schema schema;
  schema.json_ = typed("string", std::move(description));
  schema.json_["maxLength"] = max_length;
  return schema;
}

Schema Schema::integer(std::string description) {
  Schema schema;
  schema.json_ = typed("integer", std::move(description));
  return schema;
}

Schema Schema::number(std::string description) {
  Schema schema;
  schema.json_ = typed("number", std::move(description));
  return schema;
}

Schema Schema::boolean(std::string description) {
  Schema schema;
  schema.json_ = typed("boolean", std::move(description));
  return schema;
}

Schema Schema::time(std::string description) {
  Schema schema;
  schema.json_ = typed("string", std::move(description));
  schema.json_["format"] = "date-time";
  return schema;
}

Schema Schema::list(std::string description, Schema items, std::optional<size_t> max_items) {
  Schema schema;
  schema.json_ = typed("array", std::move(description));
  if (max_items) schema.json_["maxItems"] = *max_items;
  schema.json_["items"] = std::move(items.json_);
  return schema;
}

Schema Schema::map(std::string description, Schema values) {
  Schema schema;
  schema.json_ = typed("object", std::move(description));
  schema.json_["additionalProperties"] = std::move(values.json_);
  return schema;
}

Schema Schema::integer_or_text(std::string description, size_t max_length) {
  Schema schema;
  schema.json_["x-kubernetes-int-or-string"] = true;
  schema.json_["description"] = std::move(description);
  schema.json_["maxLength"] = max_length;
  return schema;
}

Schema Schema::any() {
  Schema schema;
  schema.json_["x-kubernetes-preserve-unknown-fields"] = true;
  return schema;
}

Schema& Schema::field(std::string name, Schema schema) & {
  json_["properties"][std::move(name)] = std::move(schema.json_);
  return *this;
}

Schema&& Schema::field(std::string name, Schema schema) && {
  field(std::move(name), std::move(schema));
  return std::move(*this);
}

Schema&& Schema::fallback(Ordered value) && {
  json_["default"] = std::move(value);
  return std::move(*this);
}

Schema& Schema::rule(Rule rule) & {
  Ordered json;
  json["rule"] = std::move(rule.cel);
  if (!rule.message.empty()) json["message"] = std::move(rule.message);
  if (!rule.message_expression.empty()) json["messageExpression"] = std::move(rule.message_expression);
  if (!rule.field_path.empty()) json["fieldPath"] = std::move(rule.field_path);
  if (rule.reason == Rule::Reason::kRequired) json["reason"] = "FieldValueRequired";
  if (rule.reason == Rule::Reason::kForbidden) json["reason"] = "FieldValueForbidden";
  json_["x-kubernetes-validations"].push_back(std::move(json));
  return *this;
}

Schema&& Schema::rule(Rule rule) && {
  this->rule(std::move(rule));
  return std::move(*this);
}

Schema&& Schema::keep_unknown() && {
  json_["x-kubernetes-preserve-unknown-fields"] = true;
  return std::move(*this);
}

Schema&& Schema::set(std::string key, Ordered value) && {
  json_[std::move(key)] = std::move(value);
  return std::move(*this);
}

void apply_defaults(const Ordered& schema, Json& value) {
  if (value.is_array() && schema.contains("items")) {
    for (Json& element : value) apply_defaults(schema.at("items"), element);
  }
  if (!value.is_object() || !schema.contains("properties")) return;
  for (const auto& [name, property] : schema.at("properties").items()) {
    if (!value.contains(name) && property.contains("default")) value[name] = Json::parse(property.at("default").dump());
    if (value.contains(name)) apply_defaults(property, value[name]);
  }
}

Problems compare(const Ordered& schema, const Json& value, const std::string& path) {
  if (!has_type(schema, value)) return {{path, "is not of the schema's type: " + value.dump()}};
  Problems problems;
  const auto below = [&](const Ordered& part, const Json& element, const std::string& at) {
    const Problems more = compare(part, element, at);
    problems.insert(problems.end(), more.begin(), more.end());
  };
  if (value.is_array() && schema.contains("items")) {
    for (size_t i = 0; i < value.size(); ++i) below(schema.at("items"), value[i], path + "[" + std::to_string(i) + "]");
  }
  if (!value.is_object()) return problems;
  for (const auto& [name, element] : value.items()) {
    const std::string at = path + "." + name;
    if (schema.contains("additionalProperties")) {
      below(schema.at("additionalProperties"), element, at);
    } else if (schema.contains("properties") && schema.at("properties").contains(name)) {
      below(schema.at("properties").at(name), element, at);
    } else if (!schema.contains("x-kubernetes-preserve-unknown-fields")) {
      problems.push_back({at, "is not in the schema; an API server would drop it"});
    }
  }
  return problems;
}

}  // namespace pitcrew::crd
