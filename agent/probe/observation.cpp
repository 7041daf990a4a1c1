#include "agent/probe/observation.hpp"

#include <cmath>
#include <cstdio>

namespace pitcrew::agent {

std::string to_string(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  const double number = std::get<double>(value);
  char buffer[40];
  const bool whole = std::isfinite(number) && number == std::floor(number) && std::fabs(number) < 1e15;
  std::snprintf(buffer, sizeof buffer, whole ? "%.0f" : "%.6g", number);
  return buffer;
}

std::optional<double> Observation::number(std::string_view name) const {
  const auto found = values.find(name);
  if (found == values.end() || !std::holds_alternative<double>(found->second)) return std::nullopt;
  return std::get<double>(found->second);
}

std::string Observation::word(std::string_view name) const {
  const auto found = values.find(name);
  return found == values.end() ? "" : to_string(found->second);
}

}  // namespace pitcrew::agent
