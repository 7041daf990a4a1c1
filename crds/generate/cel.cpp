#include "crds/generate/cel.hpp"

namespace pitcrew::crd::cel {

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string seconds_of(const std::string& text) {
  return text +
         ".findAll('[0-9.]+[a-z]+').map(p, double(p.find('[0-9.]+')) * "
         "(p.endsWith('ns') ? 0.000000001 : p.endsWith('us') ? 0.000001 : p.endsWith('ms') ? 0.001 : "
         "p.endsWith('s') ? 1.0 : p.endsWith('m') ? 60.0 : p.endsWith('h') ? 3600.0 : 86400.0)).sum()";
}

std::string is_duration(const std::string& text) {
  // 2305843009 s: a quarter of what 64 bits of nanoseconds hold (lib/base/time.cpp).
  return "(" + text + " == '0' || (" + text + ".matches('^(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|ms|s|m|h|d))+$') && " +
         seconds_of(text) + " <= 2305843009.0))";
}

}  // namespace pitcrew::crd::cel

namespace pitcrew::crd {

Schema count(std::string description, CountLimits limits) {
  Schema schema = Schema::integer(std::move(description));
  schema.rule({.cel = "self >= 0", .message = "must not be negative"});
  if (limits.lowest > 0) {
    const std::string lowest = std::to_string(limits.lowest);
    schema.rule({.cel = "self < 0 || self >= " + lowest, .message = "must be at least " + lowest + limits.why});
  }
  if (limits.is_64_bit) return schema;
  schema.rule({.cel = "self <= 4294967295", .message = "is too large"});
  if (limits.highest) {
    const std::string highest = std::to_string(*limits.highest);
    schema.rule({.cel = "self > 4294967295 || self <= " + highest, .message = "must be at most " + highest});
  }
  return schema;
}

Schema duration(std::string description, DurationLimits limits) {
  const std::string is_auto = limits.or_auto ? "self == 'auto' || " : "";
  Schema schema = Schema::text(std::move(description), kMaxDurationText);
  schema.rule({.cel = is_auto + cel::is_duration("self"),
               .message = "is not a duration; write it like 30s, 10m, 1h30m or 72h",
               .message_expression = "\"'\" + self + \"' is not a duration; write it like 30s, 10m, 1h30m or 72h\""});
  if (!limits.at_least.empty()) {
    char lowest[32];
    std::snprintf(lowest, sizeof lowest, "%.1f", limits.seconds);
    schema.rule(
        {.cel = is_auto + "!" + cel::is_duration("self") + " || " + cel::seconds_of("self") + " >= " + lowest,
         .message = std::string("must be ") + (limits.or_auto ? "auto or " : "") + "at least " + limits.at_least});
  }
  return schema;
}

Schema one_of(std::string description, const std::vector<std::string>& words) {
  std::string list, allowed;
  for (const std::string& word : words) {
    list += (list.empty() ? "" : ", ") + cel::quoted(word);
    allowed += (allowed.empty() ? "" : ", ") + word;
  }
  return Schema::text(std::move(description), 64)
      .rule({.cel = "self in [" + list + "]",
             .message = "is none of: " + allowed,
             .message_expression = "\"'\" + self + \"' is none of: " + allowed + "\""});
}

}  // namespace pitcrew::crd
